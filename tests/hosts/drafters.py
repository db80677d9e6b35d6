"""Drafters of mlx-vlm that guess what a test wants them to guess."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

from mlx_gemma4_patches.gemma4 import tiny

RIGHTNESS: dict[str, Callable[[int], bool]] = {
    "always right": lambda place: True,
    "right two times of three": lambda place: place % 3 > 0,
    "right every other time": lambda place: place % 2 > 0,
    "always wrong": lambda place: False,
}


def scripted(drafter: Any, texts: Sequence[list[int]], is_right: Callable[[int], bool]) -> Any:
    """The drafter, which now guesses from texts that it knows.

    Args:
        texts: prompts with the answers that plain decoding gives.
        is_right: whether the guess of the token at this place in a text is right.
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
        read = mx.broadcast_to(mx.array(drafter._kv_valid_len).reshape(-1), (len(last),)).tolist()
        rows = []
        for token, place in zip(last, read, strict=True):
            row = [token]
            for step in range(1, block_size):
                row.append(guess(row[-1], place + step))
            rows.append(row[1:])
        return mx.array(rows, dtype=token_dtype)

    drafter.draft_block = draft_block
    return drafter
