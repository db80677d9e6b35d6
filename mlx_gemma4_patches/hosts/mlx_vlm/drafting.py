"""mlx-vlm's own drafters of Gemma 4 with the tiny weights, for probes and tests."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import mlx.core as mx

from ...gemma4 import tiny, tiny_assistant
from ...patch import NotApplicable
from .tiny import processor

ASSISTANT = "mlx_vlm.speculative.drafters.gemma4_assistant"


def drafter(shape: str) -> Any:
    """The host's draft model of kind "mtp" for one shape of ``gemma4.tiny.SHAPES``, no files.

    Raises NotApplicable where the host has none.
    """
    try:
        host = import_module(ASSISTANT)
    except ImportError:
        raise NotApplicable("this mlx-vlm has no drafters of Gemma 4") from None
    made = host.Model(host.ModelConfig.from_dict(tiny_assistant.config(shape)))
    made.load_weights(list(made.sanitize(tiny_assistant.weights(shape)).items()))
    return made.eval()


def knowing(draft: Any, texts: Sequence[list[int]], is_right: Callable[[int], bool]) -> Any:
    """The drafter, which now guesses from texts that it knows.

    Args:
        texts: prompts with the answers that plain decoding gives.
        is_right: whether the guess of the token at this place in a text is to be right.
    """

    def guess(last: int, place: int) -> int:
        text = next((t for t in texts if place < len(t) and t[place - 1] == last), None)
        right = text[place] if text else 0
        return right if is_right(place) else (right + 1) % tiny.MEDIA_IDS.start

    def draft_block(
        last_bonus: Any,
        hidden: mx.array,
        cache: Any,
        block_size: int,
        sampler: Any,
        token_dtype: Any = mx.int32,
        greedy: bool = False,
    ) -> mx.array:
        last = mx.array(last_bonus).reshape(-1).tolist()
        read = getattr(draft, "_kv_valid_len", draft._position)  # the latter in 0.5.0
        read = mx.broadcast_to(mx.array(read).reshape(-1), (len(last),)).tolist()
        rows = []
        for token, place in zip(last, read, strict=True):
            row = [token]
            for step in range(1, block_size):
                row.append(guess(row[-1], place + step))
            rows.append(row[1:])
        return mx.array(rows, dtype=token_dtype)

    draft.draft_block = draft_block
    return draft


def generating() -> Any:
    """The module of ``generate_step`` and ``BatchGenerator``."""
    with contextlib.suppress(ModuleNotFoundError):
        return import_module("mlx_vlm.generate.ar")
    return import_module("mlx_vlm.generate")  # before 0.6.0


def answer(
    model: Any, prompt: list[int], limit: int, draft: Any = None, drafts: int = 3, **how: Any
) -> list[int]:
    """What a model says alone, greedily.

    Args:
        drafts: tokens that the drafter guesses in a round.
        how: further arguments of ``generate_step``.
    """
    if draft is not None:
        draft.config.block_size = drafts + 1
        how |= {"draft_model": draft, "draft_kind": "mtp", "draft_block_size": drafts + 1}
    steps = generating().generate_step(
        mx.array([prompt]), model, None, None, max_tokens=limit, temperature=0.0, **how
    )
    return [int(token) for token, *_ in steps]


def answers(
    model: Any, prompts: list[list[int]], limit: int, draft: Any = None, drafts: int = 3, **how: Any
) -> list[list[int]]:
    """What a model says to several prompts in one batch, greedily.

    Raises NotApplicable where the host's batches take no drafter.
    """
    kind = generating().BatchGenerator
    known = inspect.signature(kind.__init__).parameters
    if draft is not None:
        if "draft_model" not in known:
            return _as_its_server(model, prompts, limit, draft, drafts)
        draft.config.block_size = drafts + 1
        how |= {"draft_model": draft, "draft_kind": "mtp", "draft_block_size": drafts + 1}
    how |= {"greedy_sampling": True, "compute_logprobs": False}
    how = {name: value for name, value in how.items() if name in known}
    batches = kind(model.language_model, processor(), max_tokens=limit, **how)
    said: dict[Any, list[int]] = {}
    embedded = [model.get_input_embeddings(mx.array([ids]), None).to_dict() for ids in prompts]
    uids = batches.insert(
        prompts,
        max_tokens=[limit] * len(prompts),
        prompt_kwargs=[{k: v for k, v in row.items() if v is not None} for row in embedded],
    )
    try:
        while len(said) < len(prompts) or any(len(tokens) < limit for tokens in said.values()):
            step = batches.next()
            for response in step[1] if isinstance(step, tuple) else step:
                if response.token is not None:
                    said.setdefault(response.uid, []).append(int(response.token))
    finally:
        if hasattr(batches, "close"):
            batches.close()
    return [said[uid] for uid in uids]


def _as_its_server(
    model: Any, prompts: list[list[int]], limit: int, draft: Any, drafts: int
) -> list[list[int]]:
    """The same in the steps of the server of 0.5.0, whose ``BatchGenerator`` takes no drafter."""
    host = generating()
    if not hasattr(host, "_mtp_rounds_batch"):
        raise NotApplicable("batches of this mlx-vlm take no drafter")
    text, longest = model.language_model, max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    rows = [[0] * left + prompt for left, prompt in zip(padding, prompts, strict=True)]
    ids, caches = mx.array(rows, mx.int32), host._make_cache(text, padding)
    embedded = model.get_input_embeddings(ids, None).to_dict()
    embedded = {name: value for name, value in embedded.items() if value is not None}
    read = text(ids, cache=caches, return_hidden=True, return_shared_kv=True, **embedded)
    first = mx.argmax(read.logits[:, -1], axis=-1)
    said = [[token] for token in first.tolist()]
    rounds = host._mtp_rounds_batch(
        model,
        draft,
        caches,
        read.hidden_states[-1],
        read.shared_kv_states,
        first_bonus=first,
        max_tokens=limit,
        sampler=lambda logits: mx.argmax(logits, axis=-1),
        draft_block_size=drafts + 1,
    )
    for tokens, _ in rounds:
        for row, token in zip(said, tokens, strict=True):
            row += [] if token is None else [token]
    return said
