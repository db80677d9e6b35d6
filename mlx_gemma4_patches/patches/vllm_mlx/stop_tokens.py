"""Continuous batching runs past the end of the turn.

What the user sees: with ``--continuous-batching`` 0.2.7 talks on after ``<turn|>``, in both roles,
until max_tokens. 0.2.8 to 0.5.0 do so where config.json or its ``text_config`` alone names the
ids, where they are strings or nested, and where generation_config.json is broken.

Why: ``MLLMScheduler._get_stop_tokens`` asks the tokenizer, which names ``<eos>`` alone. From 0.2.8
on it reads generation_config.json too, and takes what it finds as it stands.

The fix: it hands out the ids of all sources too. The simple engine needs no such patch: where it
gives text to mlx-lm with a plain tokenizer (0.4.0 to 0.5.0, past ``<turn|>`` with every Gemma 4;
waybarrios/vllm-mlx#610), ``mlx_lm.eos_tokens`` gives that tokenizer its ids. It can be deleted
when no supported release is older than 0.6.0: see ``vllm_mlx.collect_eos_tokens``.
"""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace

from ...gemma4 import stop_tokens
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TARGET = "vllm_mlx.mllm_scheduler:MLLMScheduler._get_stop_tokens"


def probe() -> Finding:
    if hasattr(import_module("vllm_mlx.utils.tokenizer"), "collect_eos_token_ids"):
        raise NotApplicable("this vllm-mlx collects stop tokens in one place for both engines")
    from vllm_mlx.mllm_scheduler import MLLMScheduler

    def stops(folder):
        tokenizer = SimpleNamespace(eos_token_id=1, name_or_path=str(folder))
        scheduler = SimpleNamespace(processor=SimpleNamespace(tokenizer=tokenizer))
        return MLLMScheduler._get_stop_tokens(scheduler)

    return stop_tokens.probe(stops)


def apply(surgery: Surgery) -> None:
    def make(original):
        def _get_stop_tokens(self):
            tokenizer = getattr(self.processor, "tokenizer", self.processor)
            folder = getattr(tokenizer, "name_or_path", None)
            return stop_tokens.unite(lambda: original(self), folder)

        return _get_stop_tokens

    surgery.wrap(_TARGET, make)


PATCH = Patch(
    id="vllm_mlx.stop_tokens",
    targets=(_TARGET,),
    apply=apply,
    probe=probe,
)
