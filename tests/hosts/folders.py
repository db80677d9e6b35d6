"""Model folders that name their stop tokens in many ways."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.hosts import tokenizer

# 1, 106 and 50 stop, by: bytes of generation_config.json, changes to config.json and text_config
EVERYWHERE: dict[str, dict[str, Any]] = {
    "as shipped": {"generation": b'{"eos_token_id": [1, 106, 50]}'},
    "without <eos>": {"generation": b'{"eos_token_id": [106, 50]}'},
    "numbers as strings": {"generation": b'{"eos_token_id": ["106", "50"]}'},
    "names": {"generation": b'{"eos_token_id": ["<turn|>", "<|tool_response>"]}'},
    "floats": {"generation": b'{"eos_token_id": [106.0, 50.0]}'},
    "nested": {"generation": b'{"eos_token_id": [[1, 106], 50]}'},
    "null": {"generation": b'{"eos_token_id": null}', "config": [106, 50]},
    "config.json alone": {"config": [1, 106, 50]},
    "text_config alone": {"text_config": [1, 106, 50]},
    "three places": {"generation": b'{"eos_token_id": 50}', "config": 106, "text_config": 1},
}

# config.json names 1 and 106 beside these
BROKEN = {
    "truncated": b'{"eos_token_id": [1, 10',
    "empty": b"",
    "a list": b"[1, 106, 50]",
    "null": b"null",
    "bad UTF-8": b'{"_name": "\xff", "eos_token_id": [1, 106, 50]}',
    "too deep": b'{"eos_token_id":' + b"[" * 100_000,
}


def variant(
    model: Path,
    folder: Path,
    generation: bytes | None = None,
    config: Any = None,
    text_config: Any = None,
) -> Path:
    """A copy of a model in ``folder`` that names no stop tokens but these."""
    folder.mkdir(exist_ok=True)
    for file in model.iterdir():
        if file.suffix == ".safetensors":
            (folder / file.name).symlink_to(file)
        else:
            shutil.copy(file, folder)
    if generation in BROKEN.values():
        config = [1, 106]
    settings = json.loads((folder / "config.json").read_text())
    for where, value in ((settings, config), (settings["text_config"], text_config)):
        where.pop("eos_token_id", None)
        if value is not None:
            where["eos_token_id"] = value
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").unlink()
    if generation is not None:
        (folder / "generation_config.json").write_bytes(generation)
    return folder


def other_model(
    folder: Path, generation: bytes = b"[]", config: Any = None, text_config: Any = None
) -> Path:
    """A Llama in ``folder``, without weights, that names its stop tokens in this way."""
    tokenizer.save(folder)
    settings = {"eos_token_id": config, "text_config": {"eos_token_id": text_config}}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **settings}))
    (folder / "generation_config.json").write_bytes(generation)
    return folder
