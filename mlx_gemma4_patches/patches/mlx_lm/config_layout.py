"""Checkpoints that transformers saved do not load: "Expected shape ... but received shape ...".

What the user sees: a fine-tune or merge of the 26B-A4B or the 31B, saved by transformers 5.15 or
newer, ends in that ValueError for k_proj of a full-attention layer; any model with a vocabulary of
its own in the same for the embedding table; the 12B in "Missing 147 parameters:
...embed_tokens_per_layer...". A head that is a copy of the embedding table, or one of its own, ends
in "Received 1 parameters not in model: lm_head.weight".

Why: transformers writes another config.json than Google (see ``gemma4.layout``), and where mlx-lm
misses a setting it takes that of E2B. It knows an output head only under the name that it writes
itself, and none where ``tie_word_embeddings`` is left true.

The fix: the missing settings are added; so ``mlx_lm.convert`` writes them too, and what it converts
loads anywhere. A head that is a copy of the embedding table is left out, any other is used. It can
be deleted when mlx-lm reads ``per_layer_config`` and ``lm_head.weight``.

Upstream: huggingface/transformers#47384 (5.15) brought the layout.
"""

from __future__ import annotations

import mlx.nn as nn

from ...gemma4 import layout, tiny
from ...gemma4.config import text_config
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_OUTER = "mlx_lm.models.gemma4"
_TEXT = "mlx_lm.models.gemma4_text"
_HEAD = "lm_head."


def probe() -> Finding:
    try:
        from mlx_lm.models import gemma4
    except ImportError:
        raise NotApplicable("this mlx-lm has no Gemma 4") from None

    weights = tiny.weights("dense")
    table = weights["model.language_model.embed_tokens.weight"]
    cases = {
        "per_layer_config": (layout.as_transformers(tiny.config("dense")), {}),
        "a copy of the embedding table": (tiny.config("dense"), {"lm_head.weight": table}),
        "an output head": (tiny.config("dense"), {"lm_head.weight": table[::-1]}),
    }
    refused = []
    for name, (config, more) in cases.items():
        model = gemma4.Model(gemma4.ModelArgs.from_dict(config))
        try:
            model.load_weights(list(model.sanitize({**weights, **more}).items()))
        except ValueError:
            refused.append(name)
    if refused:
        return Finding(True, f"a checkpoint does not load that has {', '.join(refused)}")
    return Finding(False, f"checkpoints load that have {', '.join(cases)}")


def apply(surgery: Surgery) -> None:
    surgery.wrap(f"{_OUTER}:ModelArgs.from_dict", _with_vocabulary)
    surgery.wrap(f"{_OUTER}:Model.sanitize", _with_head_named)
    surgery.wrap(f"{_TEXT}:ModelArgs.from_dict", _with_settings)
    surgery.wrap(f"{_TEXT}:Model.sanitize", _with_head)


def _with_vocabulary(original):
    def from_dict(cls, params):
        size = text_config(params).get("vocab_size")
        if isinstance(size, int):
            params["vocab_size"] = size
        return original(cls, params)

    return from_dict


def _with_settings(original):
    def from_dict(cls, params):
        params.update(layout.settings_left_out(params))
        return original(cls, params)

    return from_dict


def _with_head_named(original):
    def sanitize(self, weights):
        return original(
            self,
            {
                f"language_model.{name}" if name.startswith(_HEAD) else name: value
                for name, value in weights.items()
            },
        )

    return sanitize


def _with_head(original):
    def sanitize(self, weights):
        weights = original(self, weights)
        head = layout.head_and_table(weights)
        if self.tie_word_embeddings and head:
            if layout.is_copy(weights, head):
                return {name: value for name, value in weights.items() if name not in head}
            self.tie_word_embeddings = False
            self.lm_head = nn.Linear(self.args.hidden_size, self.args.vocab_size, bias=False)
        return weights

    return sanitize


PATCH = Patch(
    id="mlx_lm.config_layout",
    targets=(
        f"{_OUTER}:ModelArgs.from_dict",
        f"{_OUTER}:ModelArgs.__post_init__",
        f"{_OUTER}:Model.sanitize",
        f"{_TEXT}:ModelArgs.from_dict",
        f"{_TEXT}:Model.sanitize",
    ),
    apply=apply,
    probe=probe,
)
