"""Fingerprints are taken of the same text on every Python."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import json.decoder
import tarfile
import typing
from types import FunctionType, ModuleType

import pytest

from mlx_gemma4_patches.fingerprint import source

DECORATED = """
class Owner:
    @staticmethod
    @print
    def documented(a,
                   b):
        \"""Nothing runs here.\"""

    def commented(self):
        return (
            1
        )
        # the end

    def quoted(self):
        return \"""
            text
        \"""


def last(): return 1
"""


def functions(module: ModuleType) -> list[FunctionType]:
    owners = [module, *(v for v in vars(module).values() if isinstance(v, type))]
    found = [f for o in owners for f in vars(o).values() if isinstance(f, FunctionType)]
    return [f for f in found if f.__code__.co_filename == module.__file__]


@pytest.mark.parametrize("module", [argparse, ast, dataclasses, json.decoder, tarfile, typing])
def test_a_function_has_the_source_that_inspect_finds(module: ModuleType) -> None:
    assert len(functions(module)) > 4
    for function in functions(module):
        if function.__name__ != "<lambda>":
            assert source(function) == inspect.getsource(function.__code__)


def test_decorators_comments_and_strings_belong_to_it(tmp_path) -> None:
    file = tmp_path / "shapes.py"
    file.write_text(DECORATED)
    made: dict[str, typing.Any] = {"print": lambda function: function}
    exec(compile(DECORATED, str(file), "exec"), made)
    owner = made["Owner"]
    for function in (owner.documented, owner.commented, owner.quoted, made["last"]):
        assert source(function) == inspect.getsource(function.__code__)


def test_a_file_that_changed_since_is_an_error(tmp_path) -> None:
    file = tmp_path / "cut.py"
    text = "\n\n\ndef late():\n    return 1\n"
    file.write_text(text)
    made: dict[str, typing.Any] = {}
    exec(compile(text, str(file), "exec"), made)
    file.write_text("\n")
    with pytest.raises(OSError, match="ends before"):
        source(made["late"])
