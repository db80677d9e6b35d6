"""E2B and E4B take the wrong per-layer inputs when they are given embeddings without token ids.

What the user sees: ``model(None, input_embeddings=...)`` answers nonsense on a quantized model, or
runs out of memory; ``generate_step`` with an empty prompt and ``input_embeddings`` ends in a
broadcast error. Embeddings that are not the model's own give an answer to other tokens, silently.

Why: the ids are recovered as the nearest rows by distance. The distances take the packed weights
of a quantized table for numbers, fill a vocabulary by tokens tensor (1.9 GB for 2048 tokens), and
some row is always nearest. Empty ids, which an empty prompt gives, count as ids.

The fix: the host gets the exact ids from ``gemma4.embedding``, and embeddings that are no rows of
the table raise a ValueError that says where. That takes one evaluation of the embeddings. Inside
``mx.compile`` nothing can be evaluated or raised, so such positions become NaN there; a table that
is itself an input of the compiled function is left to the host's own search.

Upstream: ml-explore/mlx-lm#1093, where the search was added and its author agreed that an error is
cleaner. transformers compares exactly and raises too. It can be deleted when mlx-lm does the same.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from ...gemma4.embedding import find, is_traced, token_ids
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TARGET = "mlx_lm.models.gemma4_text:Gemma4TextModel._get_per_layer_inputs"


def probe() -> Finding:
    try:
        from mlx_lm.models.gemma4_text import Gemma4TextModel, ModelArgs
    except ImportError:
        raise NotApplicable("this mlx-lm has no Gemma 4") from None

    sizes = {"hidden_size": 32, "vocab_size": 512, "vocab_size_per_layer_input": 512}
    model = Gemma4TextModel(
        ModelArgs(
            num_hidden_layers=1, num_kv_shared_layers=0, hidden_size_per_layer_input=8, **sizes
        )
    )
    plain = model.embed_tokens
    plain.weight = mx.random.normal((512, 32), key=mx.random.key(0))
    ids = mx.arange(512)[None]
    none = mx.zeros((1, 0), mx.int32)
    faults = []
    for name, table in (("plain", plain), ("4-bit", plain.to_quantized(32, 4))):
        model.embed_tokens = table
        rows = model.embed_tokens(ids)
        expected = model._get_per_layer_inputs(ids)
        same = (model._get_per_layer_inputs(None, rows) == expected).all((-1, -2))
        if not same.all():
            faults.append(f"{512 - same.sum().item()} of 512 ids wrong in a {name} table")
        if model._get_per_layer_inputs(none, rows).shape != expected.shape:
            faults.append(f"no lookup for an empty prompt in a {name} table")
    try:
        mx.eval(model._get_per_layer_inputs(None, mx.ones((1, 1, 32))))
        faults.append("embeddings of no token taken for tokens")
    except ValueError:
        pass
    return Finding(
        bool(faults), "; ".join(faults) or "all ids found, embeddings of no token refused"
    )


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TARGET, _with_exact_ids)


def _with_exact_ids(original: Callable) -> Callable:
    def get_per_layer_inputs(self, input_ids, input_embeddings=None):
        has_ids = input_ids is not None and input_ids.size
        if has_ids or input_embeddings is None or not input_embeddings.size:
            return original(self, input_ids, input_embeddings)
        if is_traced(self.embed_tokens.weight):
            return original(self, None, input_embeddings)
        if not is_traced(input_embeddings):
            return original(self, token_ids(self.embed_tokens, input_embeddings), input_embeddings)
        ids, found = find(self.embed_tokens, input_embeddings)
        inputs = original(self, ids, input_embeddings)
        # looked up: mlx 0.31.2 cannot compile a NaN constant for the CPU
        factor = mx.array([mx.nan, 1.0], inputs.dtype)[found.astype(mx.int32)]
        return inputs * factor[..., None, None]

    return get_per_layer_inputs


PATCH = Patch(id="mlx_lm.reverse_embedding", targets=(_TARGET,), apply=apply, probe=probe)
