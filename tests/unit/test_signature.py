"""Targets with brackets: what a function is called with decides, its body does not."""

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


SAME = [
    ("def f(a, b=1): return a", "def f(a: int, b: str = 2) -> int:\n    'Text.'\n    return b"),
    ("async def f(a): return a", "async def f(a): await a"),
    ("def f(a, *, b=1): yield a", "def f(a, *, b=None):\n    x = 1\n    yield from a"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_body_annotations_and_values_of_defaults_do_not_count(of, one, other):
    assert of(one) == of(other)


DIFFERENT = [
    "def f(a): pass",
    "def f(b): pass",
    "def f(a=1): pass",
    "def f(a, b): pass",
    "def f(b, a): pass",
    "def f(a, b=1): pass",
    "def f(a, /, b): pass",
    "def f(a, *, b): pass",
    "def f(a, *, b=1): pass",
    "def f(a, *b): pass",
    "def f(a, **b): pass",
    "def f(a, *b, **c): pass",
    "def f(a): yield",
    "async def f(a): pass",
    "async def f(a): yield",
    "def g(a): pass\nf = g",
    "class f:\n    pass\nf = staticmethod(lambda a: a)",
]


def test_everything_that_a_caller_can_tell_counts(of):
    prints = []
    for text in DIFFERENT:
        prints.append(of(text))
    assert len(set(prints)) == len(DIFFERENT)


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
