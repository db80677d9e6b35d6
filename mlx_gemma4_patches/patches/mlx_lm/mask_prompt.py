"""LoRA with ``--mask-prompt`` learns answers without their beginning, or behind a wrong prompt.

What the user sees: a fine-tune whose answers lack their first words; with short answers a loss of
NaN from the first step. Where nobody says whether to think, as by default, every example is taught
as the answer to a system turn that asks for thinking, which it does not do.

Why: mlx-lm takes as many tokens for the prompt as the template writes before an answer. Google's
templates write an empty thought there, or open one, and write neither in a conversation that has
the answer. And whether to think is the template's to know, of which mlx-lm says yes.

The fix: an example is the prompt as inference renders it, and behind it the answer as the template
renders it, whole. It thinks if its answer does. Examples that do not end in an answer, and those of
other models, are mlx-lm's. It can be deleted when mlx-lm looks for the answer in what it renders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...gemma4.channels import END, OPENING, THOUGHT
from ...hosts.mlx_lm import chat
from ...hosts.mlx_lm.models import is_gemma4
from ...patch import Finding, Patch
from ...surgery import Surgery

_DATA = "mlx_lm.tuner.datasets"
_CHAT = f"{_DATA}:ChatDataset.process"
_COMPLETIONS = f"{_DATA}:CompletionsDataset.process"
_BEFORE_ANSWERS = ("", f"{THOUGHT}\n", f"{THOUGHT}\n{END}")  # what only a prompt has


def probe() -> Finding:
    chat.require_gemma4()
    from mlx_lm.tuner.datasets import CompletionsDataset

    tokenizer = chat.tokenizer(template=_template)
    example = {"prompt": "a", "completion": "b"}
    dataset = CompletionsDataset([example], tokenizer, "prompt", "completion", True)
    tokens, offset = dataset.process(example)
    taught = chat.text(tokens[:offset]), chat.text(tokens[offset:])
    wrong = taught != (f"user:a\nmodel:{THOUGHT}\n{END}", "b\n")
    return Finding(wrong, f"behind {taught[0]!r} it learns to say {taught[1]!r}")


def _template(messages: list, add_generation_prompt: bool, enable_thinking: bool) -> str:
    """The part of Google's template of May 2026 that matters here."""
    names = {"assistant": "model"}
    turns = [f"{names.get(m['role'], m['role'])}:{m['content']}\n" for m in messages]
    asks = "system:think\n" if enable_thinking else ""
    begins = "model:" + ("" if enable_thinking else f"{THOUGHT}\n{END}")
    return asks + "".join(turns) + (begins if add_generation_prompt else "")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_CHAT, _of_a_chat)
    surgery.wrap(_COMPLETIONS, _of_a_completion)


def _of_a_chat(original: Callable) -> Callable:
    def process(self, d):
        made = _example(self, d[self.chat_key], d.get("tools"))
        return original(self, d) if made is None else made

    return process


def _of_a_completion(original: Callable) -> Callable:
    def process(self, d):
        messages = [
            {"role": "user", "content": d[self.prompt_key]},
            {"role": "assistant", "content": d[self.completion_key]},
        ]
        made = _example(self, messages, d.get("tools"))
        return original(self, d) if made is None else made

    return process


def _example(dataset: Any, messages: Sequence[dict], tools: Any) -> tuple[list[int], int] | None:
    """Token ids and how many of them are the prompt; None where that is mlx-lm's to say."""
    tokenizer = dataset.tokenizer
    if not (dataset.mask_prompt and is_gemma4(tokenizer)):
        return None
    if not messages or messages[-1].get("role") != "assistant":
        return None
    for thinks in (True, False):
        how = {"tools": tools, "tokenize": False, "enable_thinking": thinks}
        whole = tokenizer.apply_chat_template(messages, **how)
        prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, **how)
        same = _common(prompt, whole)
        answer = whole[same:]
        if prompt[same:] not in _BEFORE_ANSWERS or not answer:
            return None
        is_open = same == len(prompt) and prompt.endswith(f"{THOUGHT}\n")
        if not thinks or is_open or answer.startswith(OPENING):
            ids = tokenizer.encode(prompt, add_special_tokens=False)
            return [*ids, *tokenizer.encode(answer, add_special_tokens=False)], len(ids)
    return None


def _common(prompt: str, whole: str) -> int:
    """How many characters both begin with, no marker cut in two."""
    pairs = enumerate(zip(prompt, whole, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), min(len(prompt), len(whole)))
    begins = prompt.rfind("<", 0, same)
    return begins if ">" not in prompt[max(begins, 0) : same] and begins >= 0 else same


PATCH = Patch(id="mlx_lm.mask_prompt", targets=(_CHAT, _COMPLETIONS), apply=apply, probe=probe)
