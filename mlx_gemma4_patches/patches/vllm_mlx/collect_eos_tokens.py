"""The server does not start, or runs past the end of the turn, on an unusual ``eos_token_id``.

What the user sees, from 0.6.0 on: with ``--continuous-batching`` the server does not start on a
token's name, a nested list, or a generation_config.json that is no JSON object; without it, text
requests lose the route through mlx-lm. Both run past ``<turn|>`` where config.json's
``text_config`` alone names it.

Why: ``collect_eos_token_ids``, which serves both engines (waybarrios/vllm-mlx#610), takes what it
finds as it stands and does not look into ``text_config``.

The fix: it hands out the ids of all sources too. It can be deleted when vllm-mlx reads
``text_config`` and validates what it reads.
"""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace

from ...gemma4 import stop_tokens
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TARGET = "vllm_mlx.utils.tokenizer:collect_eos_token_ids"


def probe() -> Finding:
    host = import_module("vllm_mlx.utils.tokenizer")
    if not hasattr(host, "collect_eos_token_ids"):
        raise NotApplicable("this vllm-mlx does not collect stop tokens in one place")

    def stops(folder):
        tokenizer = SimpleNamespace(eos_token_id=1, name_or_path=str(folder))
        return host.collect_eos_token_ids(tokenizer)

    return stop_tokens.probe(stops)


def apply(surgery: Surgery) -> None:
    def make(original):
        def collect_eos_token_ids(tokenizer, model_path=None):
            folder = model_path or getattr(tokenizer, "name_or_path", None)
            return stop_tokens.unite(lambda: original(tokenizer, model_path), folder)

        return collect_eos_token_ids

    surgery.wrap(_TARGET, make)


PATCH = Patch(
    id="vllm_mlx.collect_eos_tokens",
    targets=(_TARGET,),
    apply=apply,
    probe=probe,
)
