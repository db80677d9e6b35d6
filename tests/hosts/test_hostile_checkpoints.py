"""What a host loads without the patches it loads with them, whatever a model folder holds."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts.contract import unpatched

FILES = ("config.json", "generation_config.json", "model.safetensors.index.json")
HOSTS = [
    host for host in ("mlx_lm", "mlx_vlm") if find_spec(host) and find_spec(f"{host}.models.gemma4")
]


def _changed(file: Path, change: Callable[[dict[str, Any]], Any]) -> bytes:
    content = json.loads(file.read_text()) if file.exists() else {}
    changed = change(content)
    return json.dumps(content if changed is None else changed).encode()


def _text(**settings: Any) -> Callable[[Path], Any]:
    def change(config: dict[str, Any]) -> None:
        config.setdefault("text_config", {}).update(settings)

    return lambda file: file.write_bytes(_changed(file, change))


def _top(**settings: Any) -> Callable[[Path], Any]:
    return lambda file: file.write_bytes(_changed(file, lambda config: config.update(settings)))


def _again(*extra: str) -> Callable[[Path], Any]:
    """The keys of a JSON object twice, the second time with these values."""

    def change(file: Path) -> None:
        text = file.read_text().rstrip() if file.exists() else '{"a": 1}'
        file.write_text(f"{text[:-1]}, {', '.join(extra)}}}")

    return change


def _in(encoding: str) -> Callable[[Path], Any]:
    return lambda file: file.write_text(
        file.read_text() if file.exists() else "{}", encoding=encoding
    )


def _loop(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.symlink_to(file.name)


def _folder(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.mkdir()


ANY_FILE: dict[str, Callable[[Path], Any]] = {
    "deep": lambda file: file.write_bytes(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a list": lambda file: file.write_bytes(b"[]"),
    "null": lambda file: file.write_bytes(b"null"),
    "empty": lambda file: file.write_bytes(b""),
    "NaN": lambda file: file.write_bytes(b"NaN"),
    "a BOM": _in("utf-8-sig"),
    "UTF-16": _in("utf-16"),
    "null bytes": lambda file: file.write_bytes(b"\0" * 100),
    "keys twice": _again('"eos_token_id": [1, 106]', '"eos_token_id": {}'),
    "5000 digits": _again(f'"eos_token_id": {"9" * 5000}'),
    "a symbolic link to itself": _loop,
    "a folder": _folder,
}
OF_FILE: dict[str, dict[str, Callable[[Path], Any]]] = {
    "config.json": {
        "text_config: a number": _top(text_config=5),
        "text_config: a string": _top(text_config="vocab_size"),
        "text_config: null": _top(text_config=None),
        "vocab_size: null": _text(vocab_size=None),
        "vocab_size: a string": _text(vocab_size="512"),
        "model_type: a list": _top(model_type=["gemma4"]),
        "per_layer_config: a number": _text(per_layer_config=5),
        "per_layer_config: no layer": _text(per_layer_config={"x": {}}),
        "per_layer_config: no sizes": _text(per_layer_config={"1": 5}),
        "per_layer_config: wrong sizes": _text(per_layer_config={"1": {"head_dim": "x"}}),
        "per_layer_config: no such layer": _text(per_layer_config={"9" * 4000: {}}),
        "layer_types: numbers": _text(layer_types=5, per_layer_config={}),
        "layer_types: lists": _text(layer_types=[[]], per_layer_config={}),
        "eos_token_id: NaN": _top(eos_token_id=[float("nan"), float("inf")]),
        "eos_token_id: huge": _top(eos_token_id=[10**400, -(10**400)]),
        "eos_token_id: an object": _top(eos_token_id={"a": 1}),
        "eos_token_id: very many": _top(eos_token_id=list(range(10**5))),
        "eos_token_id: very many, nested": _top(eos_token_id=[[[i]] for i in range(10**5)]),
    },
    "generation_config.json": {
        "eos_token_id: very many": _top(eos_token_id=list(range(10**5))),
        "eos_token_id: very many strings": _top(eos_token_id=["x"] * 10**5),
        "eos_token_id: huge": _top(eos_token_id=10**400),
        "suppress_tokens: very many": _top(suppress_tokens=list(range(10**5))),
        "suppress_tokens: NaN": _top(suppress_tokens=[float("nan"), None, True, "x", {}]),
        "suppress_tokens: a number": _top(suppress_tokens=5),
        "suppress_tokens: an object": _top(suppress_tokens={"a": 1}),
        "temperature: NaN": _top(temperature=float("nan")),
    },
    "model.safetensors.index.json": {
        "weight_map: a list": _top(weight_map=[1, 2]),
        "weight_map: a string": _top(weight_map="abc"),
        "weight_map: null": _top(weight_map=None),
        "weight_map: of others": _top(weight_map={"x": "model.safetensors"}),
        "weight_map: a part": _top(weight_map={"language_model.x": "model.safetensors"}),
    },
}
CASES = [(file, case) for file in FILES for case in (*ANY_FILE, *OF_FILE[file])]


@pytest.fixture(scope="module", params=HOSTS)
def outcomes(request, tmp_path_factory):
    """A host's ``load_model``, the model folders, and what it says of each without the patches."""
    model = tiny.save("dense", tmp_path_factory.mktemp("gemma-4"))
    folders = {}
    for name, case in CASES:
        folders[name, case] = folder = tmp_path_factory.mktemp("model") / "gemma-4"
        folder.mkdir()
        for file in model.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        {**ANY_FILE, **OF_FILE[name]}[case](folder / name)
    load = importlib.import_module(f"{request.param}.utils").load_model
    with unpatched(request.param):
        return load, folders, {case: refusal(load, folder) for case, folder in folders.items()}


def refusal(load: Callable[[Path], Any], folder: Path) -> str | None:
    """The kind of error that loading a model folder ends in."""
    try:
        load(folder)
    except Exception as error:
        return type(error).__name__
    return None


@pytest.mark.parametrize(("name", "case"), CASES)
def test_what_loads_without_the_patches_loads_with_them(outcomes, name, case):
    load, folders, stock = outcomes
    assert refusal(load, folders[name, case]) in (None, stock[name, case])
