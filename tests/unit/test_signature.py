"""Targets with brackets: how a function is called decides, its body does not."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from mlx_gemma4_patches.fingerprint import fingerprint
from mlx_gemma4_patches.surgery import Surgery

NAME = "mlx_lm.signed"


@pytest.fixture
def of(monkeypatch):
    """The fingerprint of ``f()``, or of another target, in a module of this text."""

    def take(text: str, target: str = "f()", name: str = NAME) -> str:
        module = ModuleType(NAME)
        module.__name__ = name
        exec(text, module.__dict__)
        monkeypatch.setitem(sys.modules, NAME, module)
        return fingerprint(f"{NAME}:{target}", may_import=False)

    return take


F = "f(a, *, n)"
SAME = [
    ("def f(a, n=1): return a", "def f(a: int, n: str = 2) -> int:\n    'Text.'\n    return n"),
    ("def f(a, n): pass", "def f(a, more, *rest, n=1, **others): pass"),
    ("def f(a, n): pass", "def f(a, **others): pass"),
    ("async def f(a, n): return a", "async def f(a, n): await a"),
    ("def f(a, *, n=1): yield a", "def f(a, n=None):\n    x = 1\n    yield from a"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_is_not_in_the_brackets_does_not_count(of, one, other):
    assert of(one, F) == of(other, F)


DIFFERENT = [
    "def f(a, n): pass",
    "def f(b, n): pass",
    "def f(*a, n): pass",
    "def f(a): pass",
    "def f(a, n, /): return",
    "def f(n, a): pass",
    "def f(a, n): yield",
    "async def f(a, n): pass",
    "async def f(a, n): yield",
    "def g(a, n): pass\nf = g",
    "class f:\n    pass\nf = staticmethod(lambda a, n: a)",
]


def test_everything_that_is_in_the_brackets_counts(of):
    prints = {text: of(text, F) for text in DIFFERENT}
    same = {"def f(a, n, /): return": "def f(a): pass"}  # neither takes n by its name
    for text, other in same.items():
        assert prints.pop(text) == prints[other]
    assert len(set(prints.values())) == len(prints)


def test_kinds_of_methods_count_and_bodies_do_not(of):
    made = {
        kind: of(f"class C:\n    @{kind}\n    def m(x): return 1", "C.m()")
        for kind in ("staticmethod", "classmethod", "property")
    }
    made["plain"] = of("class C:\n    def m(x): return 1", "C.m()")
    assert len(set(made.values())) == 4
    other = "class C:\n    @classmethod\n    def m(x): return 2"
    assert of(other, "C.m()") == made["classmethod"]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("class f: pass", "f()"),
        ("f = len", "f()"),
        ("f = 1", "f()"),
        ("from functools import partial\nf = partial(print)", "f()"),
        ("", "f()"),
    ],
)
def test_what_is_no_function_of_the_host_has_none(of, text, target):
    with pytest.raises(AttributeError):
        of(text, target)


def test_a_function_of_another_package_has_none(of):
    with pytest.raises(AttributeError):
        of("def f(a): pass", name="their_patches")


def test_with_our_wrapper_around_it_it_is_the_same(of):
    before = of("def f(a, b=1): return a")
    surgery = Surgery("mlx_lm.fault", (f"{NAME}:f",))
    surgery.wrap(f"{NAME}:f", lambda original: lambda *args, **kwargs: original(*args, **kwargs))
    assert fingerprint(f"{NAME}:f()", may_import=False) == before
