"""What is kept of the conversations a server has had, within a limit.

When there is too much of it, what no likely turn would go on from is dropped first. Of a
conversation those are needed:

- the shortest, behind the system prompt, where others part from it;
- the last before its last question, which may be edited;
- the first behind that question, where thoughts begin that a template drops later;
- the last two, to go on from and to ask again.

Of the rest, and then of all, the least recently used goes first, and of one conversation what
saves the fewest tokens; last of it the system prompt.
"""

from __future__ import annotations

import array
import threading
from collections.abc import Hashable, Sequence
from typing import Any

from ..settings import PREFIX, log
from .prefix_cuts import last_asked
from .prefix_rows import Full, Kept, keep

_SIZE = 8  # bytes of a packed id
_NEAR = 2  # tokens that are cheaper to process again than a window is to keep: <turn|> and a line


class _Entry:
    def __init__(self, text: bytes, asked: int, kept: Kept):
        self.text = text
        self.asked = asked
        self.kept = kept
        self.used = 0
        self.before: _Entry | None = None  # the longest beginning of this text

    def path(self) -> list[_Entry]:
        """This and its beginnings, the longest first."""
        made, entry = [], self
        while entry is not None:
            made.append(entry)
            entry = entry.before
        return made


class PrefixStore:
    """States of KV caches by the token ids that led there; any number of threads may use it."""

    def __init__(self) -> None:
        self._texts: dict[Hashable, list[_Entry]] = {}
        self._clock = 0
        self._said_what_it_takes = False
        self._lock = threading.RLock()

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._texts.values()))

    @property
    def nbytes(self) -> int:
        """Bytes held, rows that several entries look into counted once."""
        with self._lock:
            entries = [entry for text in self._texts.values() for entry in text]
            return sum(e.kept.nbytes for e in entries) + sum(f.nbytes for f in _fulls(entries))

    def find(self, model: Hashable, ids: Sequence[int]) -> tuple[int, list[Any] | None]:
        """The most tokens of ``ids``, but not all, that are kept; and caches that hold them."""
        text = _packed(ids)[:-_SIZE]
        with self._lock:
            found = self._longest(model, text)
            if found is None:
                return 0, None
            self._touch(found)
            return found.kept.length, found.kept.caches()

    def known(self, model: Hashable, ids: Sequence[int]) -> int:
        """How many first tokens of ``ids`` are kept."""
        text = _packed(ids)
        with self._lock:
            return self._known(model, text)

    def kept(self, model: Hashable, ids: Sequence[int]) -> list[Any] | None:
        """Caches that hold ``ids``, no more and no less, if those are kept."""
        length, caches = self.find(model, [*ids, 0])
        return caches if length == len(ids) else None

    def add(
        self,
        model: Hashable,
        ids: Sequence[int],
        caches: list[Any],
        lengths: Sequence[int] | None = None,
    ) -> list[int]:
        """Keep what ``caches`` held after ``ids``, or after so many of them; see ``keep``.

        Returns:
            After how many it is kept now; not those that were, or nearly, before.
        """
        lengths = [len(ids)] if lengths is None else lengths
        if not (text := _packed(ids)):
            return []
        with self._lock:
            lengths = [n for n in lengths if self._known(model, text[: n * _SIZE]) + _NEAR < n]
            made = keep(caches, lengths) if lengths else []
            for kept in made:
                asked = last_asked(ids[: kept.length])
                self._put(model, _Entry(text[: kept.length * _SIZE], asked, kept))
            return [kept.length for kept in made]

    def _known(self, model: Hashable, text: bytes) -> int:
        found = self._longest(model, text)
        return found.kept.length if found else 0

    def _put(self, model: Hashable, entry: _Entry) -> None:
        entries = self._texts.setdefault(model, [])
        entry.before = self._longest(model, entry.text)
        for other in entries:
            if other.before is entry.before and other.text.startswith(entry.text):
                other.before = entry
        entries.append(entry)
        self._share(entry, entries)
        self._touch(entry)

    def trim(self, count: int | None = None, nbytes: int | None = None) -> None:
        """Drop what is least likely to be needed until no more is left than that."""
        held = 0
        with self._lock:
            while self._texts and (
                (count is not None and len(self) > count)
                or (nbytes is not None and (held := self.nbytes) > nbytes)
            ):
                self._drop(*self._least())
            if nbytes and not self._texts and held > nbytes and not self._said_what_it_takes:
                self._said_what_it_takes = True
                log.warning(
                    "mlx-gemma4-patches: a conversation takes %.1f GB to be kept and %.1f GB are "
                    "allowed, so each turn processes all of it; %s and the server's limit say how "
                    "much there may be",
                    held / 1e9,
                    nbytes / 1e9,
                    f"{PREFIX}_PREFIX_BYTES",
                )

    def _longest(self, model: Hashable, text: bytes) -> _Entry | None:
        """The longest entry that ``text`` begins with."""
        fitting = (e for e in self._texts.get(model, ()) if text.startswith(e.text))
        return max(fitting, key=lambda entry: len(entry.text), default=None)

    def _touch(self, entry: _Entry) -> None:
        self._clock += 1
        for one in entry.path():
            one.used = self._clock

    def _share(self, entry: _Entry, entries: list[_Entry]) -> None:
        """Let a conversation look into the full-attention rows of its longest, newest entry."""
        later = [e for e in entries if e is not entry and e.text.startswith(entry.text)]
        for other in sorted(later, key=lambda e: e.used, reverse=True):
            if other.kept.full.continues(entry.kept.full):
                entry.kept.full = other.kept.full
                return
        full, path = entry.kept.full, entry.path()
        for other in path:
            if full.continues(other.kept.full):
                other.kept.full = full
        moved: dict[int, Full] = {}
        for other in sorted(entries, key=lambda e: e.kept.length, reverse=True):
            if other in path or other in later or not full.is_like(other.kept.full):
                continue
            common = next((one.kept.length for one in other.path() if one in path), 0)
            other.kept.full = self._moved(other.kept, full, common, moved)

    def _moved(self, kept: Kept, full: Full, common: int, moved: dict[int, Full]) -> Full:
        """The rows of a text that parts from that of ``full`` after ``common`` tokens.

        Only what is behind is kept twice, as far as the texts are one conversation: of others,
        which share a system prompt, more would be copied than saved.
        """
        own = kept.full
        if own is full or id(own) in moved:
            return moved.get(id(own), own)
        if own.base is None and 2 * common >= own.length:
            moved[id(own)] = own.upon(full, common)
        elif own.base is not None and common >= own.start:
            own.base = full
            moved[id(own)] = own
        return moved.get(id(own), own)

    def _least(self) -> tuple[Hashable, _Entry]:
        needed = set()
        every = [(model, entry) for model, text in self._texts.items() for entry in text]
        inner = {id(entry.before) for _, entry in every}
        for _, leaf in every:
            if id(leaf) not in inner:
                needed |= {id(entry) for entry in _needed(leaf)}

        def worth(pair: tuple[Hashable, _Entry]) -> tuple[bool, int, bool, int]:
            entry, before = pair[1], pair[1].before
            saves = entry.kept.length - (before.kept.length if before else 0)
            return id(entry) in needed, entry.used, before is None, saves

        return min(every, key=worth)

    def _drop(self, model: Hashable, entry: _Entry) -> None:
        entries = self._texts[model]
        entries.remove(entry)
        for other in entries:
            if other.before is entry:
                other.before = entry.before
        if not entries:
            del self._texts[model]
        full = entry.kept.full
        while full is not None:
            _shrink(full, entries)
            full = full.base


def _needed(leaf: _Entry) -> list[_Entry]:
    path = leaf.path()
    before = [entry for entry in path if entry.kept.length <= leaf.asked]
    behind = [entry for entry in path if entry.kept.length > leaf.asked]
    return [path[-1], *path[:2], *before[:1], *behind[-1:]]


def _fulls(entries: list[_Entry]) -> list[Full]:
    """Every ``Full`` that something looks into, once."""
    found: dict[int, Full] = {}
    for entry in entries:
        full = entry.kept.full
        while full is not None and id(full) not in found:
            found[id(full)] = full
            full = full.base
    return list(found.values())


def _shrink(full: Full, entries: list[_Entry]) -> None:
    """Let go of the rows of ``full`` that none of ``entries`` looks into."""
    used = [entry.kept.length for entry in entries if entry.kept.full is full]
    used += [other.start for other in _fulls(entries) if other.base is full]
    if used and max(used) < full.length:
        full.shrink(max(used))


def _packed(ids: Sequence[int]) -> bytes:
    """``ids`` as bytes; none at all of ids that no tokenizer gives."""
    try:
        return array.array("q", ids).tobytes()
    except (OverflowError, TypeError):
        return b""
