"""How much a parser of the package reads, without a clock."""

from __future__ import annotations

import re
from types import ModuleType

import pytest


class Steps:
    """Characters read or copied, and calls made, by everything that shares it."""

    def __init__(self):
        self.count = 0

    def text(self, text: str) -> Text:
        """``text``; what is done with it and with its parts is counted."""
        made = Text(text)
        made.steps = self
        return made

    def watch(self, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        """Count what the module's regular expressions read, but for what they read in vain."""
        for name, value in list(vars(module).items()):
            if isinstance(value, re.Pattern):
                monkeypatch.setattr(module, name, _Pattern(value, self))
            elif isinstance(value, dict) and any(isinstance(v, re.Pattern) for v in value.values()):
                for key, pattern in value.items():
                    monkeypatch.setitem(value, key, _Pattern(pattern, self))


class Text(str):
    steps: Steps

    def _part(self, text: str) -> Text:
        self.steps.count += 1 + len(text)
        return self.steps.text(text)

    def _looked(self, *span: int) -> None:
        begin, end = slice(*(span or (None, None))).indices(len(self))[:2]
        self.steps.count += 1 + max(0, end - begin)

    def __getitem__(self, key: int | slice) -> Text:
        return self._part(super().__getitem__(key))

    def __add__(self, other: str) -> Text:
        return self._part(super().__add__(other))

    def __radd__(self, other: str) -> Text:
        return self._part(other + str(self))

    def find(self, what: str, begin: int = 0) -> int:
        found = super().find(what, begin)
        self._looked(begin, found if found >= 0 else len(self))
        return found

    def rfind(self, what: str) -> int:
        found = super().rfind(what)
        self._looked(max(found, 0), len(self))
        return found

    def partition(self, what: str) -> tuple[Text, Text, Text]:
        return tuple(map(self._part, super().partition(what)))

    def startswith(self, *args) -> bool:
        self.steps.count += 1
        return super().startswith(*args)

    def endswith(self, *args) -> bool:
        self.steps.count += 1
        return super().endswith(*args)

    def removesuffix(self, suffix: str) -> Text:
        return self._part(super().removesuffix(suffix))

    def removeprefix(self, prefix: str) -> Text:
        return self._part(super().removeprefix(prefix))

    def strip(self, *args) -> Text:
        return self._part(super().strip(*args))


class _Pattern:
    def __init__(self, pattern: re.Pattern, steps: Steps):
        self._pattern = pattern
        self._steps = steps

    def match(self, *args) -> re.Match | None:
        return self._counted(self._pattern.match(*args))

    def fullmatch(self, *args) -> re.Match | None:
        return self._counted(self._pattern.fullmatch(*args))

    def search(self, text: str, begin: int = 0) -> re.Match | None:
        found = self._pattern.search(text, begin)
        self._steps.count += 1 + (found.end() if found else len(text)) - begin
        return found

    def finditer(self, text: str, begin: int = 0):
        while found := self.search(text, begin):
            yield found
            begin = max(found.end(), begin + 1)

    def sub(self, replacement, text: str) -> str:
        self._steps.count += 1 + len(text)
        return self._steps.text(self._pattern.sub(replacement, text))

    def _counted(self, found: re.Match | None) -> re.Match | None:
        self._steps.count += 1 + (len(found[0]) if found else 0)
        return found
