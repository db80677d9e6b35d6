"""Where the next prompt of a conversation can part from this one.

A chat template writes old turns otherwise than new ones: it drops the thoughts of turns that are
over, and the empty thought that begins an answer without one. A client asks again, or edits what
was asked last. All of that begins at markers, so the token ids alone tell where to keep what a KV
cache holds; how a host makes its prompts does not matter.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

TURN_ID = 105  # <|turn>, before a role
RESPONSE_END_ID = 51  # <tool_response|>
CHANNEL_ID = 100  # <|channel>, which begins a thought

WORTH_WAITING = 64  # tokens that two prompts share; less is processed faster than waited for


def cuts(ids: Sequence[int]) -> list[int]:
    """The lengths, rising, at which a later prompt may part from the prompt ``ids``.

    Behind the system prompt with its tools; before the last turn that is not the model's; before
    the thought that begins the answer, or else before the last token, because a prompt that comes
    again needs one token to go on from. Each is above 0 and below ``len(ids)``.
    """
    found = {len(ids) - 1}
    turns = _turns(ids)
    if turns:
        asked = _asked(ids, turns)
        if len(asked) > 1 and ids[asked[0] + 1] != ids[asked[-1] + 1]:
            found.add(turns[1])
        if asked:
            found.add(asked[-1])
        answer = max([turns[-1], *_places(ids, RESPONSE_END_ID, turns[-1])])
        if (thought := next(_places(ids, CHANNEL_ID, answer + 1), None)) is not None:
            found.remove(len(ids) - 1)
            found.add(thought)
    return sorted(cut for cut in found if 0 < cut < len(ids))


def shared(left: Sequence[int], right: Sequence[int]) -> int:
    """How many first tokens two prompts share, less than all of either."""
    low, high = 0, min(len(left), len(right)) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def last_asked(ids: Sequence[int]) -> int:
    """Where the last turn that is not the model's begins; 0 where there is none."""
    turns = _turns(ids)
    return max(_asked(ids, turns), default=0) if turns else 0


def _turns(ids: Sequence[int]) -> list[int]:
    """Where turns begin whose role is there too."""
    return [i for i in _places(ids, TURN_ID) if i + 1 < len(ids)]


def _places(ids: Sequence[int], token: int, start: int = 0) -> Iterator[int]:
    """Where ``token`` is, from ``start`` on; a loop in Python would take longer than a turn may."""
    with contextlib.suppress(ValueError):
        while True:
            yield (start := ids.index(token, start))
            start += 1


def _asked(ids: Sequence[int], turns: list[int]) -> list[int]:
    """The turns that are not of the role of the last one, which a prompt opens for the model."""
    model = ids[turns[-1] + 1]
    return [i for i in turns if ids[i + 1] != model]
