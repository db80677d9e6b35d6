"""Prompts of a ``BatchGenerator`` that begin alike: the first one is processed, the others wait.

Requests that come at once with one long system prompt would each process it. Those behind the first
stay in the queue until it has passed what they share, and then go on from there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ...gemma4.prefix_cuts import WORTH_WAITING
from .prefixes import Prompt


def step(generator: Any, prompts: dict[int, Prompt] | None, original: Callable[[Any], Any]) -> Any:
    """A step of ``generator`` in which ``prompts``, by uid, are kept and wait for each other."""
    if not prompts:
        return original(generator)
    held = hold(generator, prompts)
    before = progress(generator)
    try:
        made = original(generator)
    finally:
        release(generator, held)
    batch = generator._prompt_batch
    for row, (uid, tokens) in enumerate(zip(batch.uids, batch.tokens, strict=True)):
        if uid in prompts and (parts := prompts[uid].parts(before[uid], len(tokens))):
            prompts[uid].keep(batch.extract_cache(row), parts)
    unread = progress(generator)
    for uid in [uid for uid in prompts if uid not in unread]:
        del prompts[uid]
    return made


def progress(generator: Any) -> dict[int, int]:
    """How many tokens of each prompt that is not read to its end are in its caches, by uid."""
    batch = generator._prompt_batch
    return {
        **{sequence[0]: len(sequence[4]) for sequence in generator._unprocessed_sequences},
        **{uid: len(tokens) for uid, tokens in zip(batch.uids, batch.tokens, strict=True)},
    }


def hold(generator: Any, prompts: dict[int, Prompt]) -> list[tuple]:
    """Take sequences out of the generator's queue that wait for others; ``release`` puts them back.

    Those that have waited and need not any more go on from what has been kept by now.
    """
    done = progress(generator)
    ahead = [uid for uid in generator._prompt_batch.uids if uid in prompts]
    held, left = [], []
    for sequence in generator._unprocessed_sequences:
        uid = sequence[0]
        prompt = prompts.get(uid)
        if prompt is None:
            left.append(sequence)
        elif _waits(prompt, done[uid], ((prompts[other], done[other]) for other in ahead)):
            prompt.waited = True
            held.append(sequence)
        else:
            left.append(_brought_forward(sequence, prompt) if prompt.waited else sequence)
            ahead.append(uid)
    generator._unprocessed_sequences = deque(left)
    return held


def release(generator: Any, held: Iterable[tuple]) -> None:
    """Put ``held`` back to where they were in the queue."""
    waiting = [*generator._unprocessed_sequences, *held]
    generator._unprocessed_sequences = deque(sorted(waiting, key=lambda sequence: sequence[0]))


def _waits(prompt: Prompt, done: int, ahead: Iterable[tuple[Prompt, int]]) -> bool:
    """Whether another prompt has yet to pass what ``prompt`` shares with it."""
    for other, passed in ahead:
        length = prompt.shares(other)
        if length - done >= WORTH_WAITING and length > passed:
            other.cut_at(length)
            return True
    return False


def _brought_forward(sequence: tuple, prompt: Prompt) -> tuple:
    length, caches = prompt.store.find(prompt.model, prompt.ids)
    if length <= len(sequence[4]):
        return sequence
    uid, _, max_tokens, _, _, *how = sequence
    *rest, last = prompt.ids[length:]
    segments = [part for part in (rest, [last]) if part]
    return (uid, segments, max_tokens, caches, prompt.ids[:length], *how)
