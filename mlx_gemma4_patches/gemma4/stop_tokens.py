"""Where Gemma 4 stops: every place in a model folder that says so, united.

A turn of Gemma 4 ends with ``<turn|>`` (106), or with ``<|tool_response>`` (50) where the model
hands over to a tool. Its tokenizer names ``<eos>`` (1) alone, so whoever asks only the tokenizer
runs past the end of the turn, into a tool result the model makes up.

Sources, in this order: ``eos_token_id`` of generation_config.json, of config.json and of its
``text_config``, and ``eos_token`` of tokenizer_config.json.

transformers (GenerationConfig, 5.23) does not unite them. generation_config.json alone counts where
it can be parsed: ``[106]`` runs past ``<eos>``, and null or a missing key never stops. Where the
file is missing or broken, config.json counts, then text_config; the tokenizer never does. Here an
id that any source names stops, as a token that ends a text ends it in every setting; so the result
is transformers' set, or more. Ids that are no integers make transformers fail when it generates.
"""

from __future__ import annotations

import functools
import json
import logging
import reprlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..patch import Finding
from .config import is_gemma4, vocabulary_size

_log = logging.getLogger(__name__)

_LIMIT = 16 << 20  # bytes; a config.json with a quantization entry per module has 200 kB
_SHOWN = 3  # refused values named in a warning


def collect(folder: str | Path) -> list[int]:
    """The ids at which the model in ``folder`` stops, each once, in the order of the sources.

    Values may be integers, integral floats, strings, and lists of them to any depth. The field
    holds ids, so a string of digits is the number it shows; any other string must be one of the
    tokenizer's added tokens, such as ``<turn|>``. null and empty lists say nothing. Everything
    else is left out: booleans, other strings, negative ids and ids out of the vocabulary.

    A file that is missing says nothing. One that is broken says nothing either, and is warned of
    once per process, as are the values left out, with the file's name and the reason.

    Never raises; an empty list means that nothing names a stop token.
    """
    folder = Path(folder)
    tokens = added_tokens(folder / "tokenizer.json")
    config = read(folder / "config.json")
    eos = read(folder / "tokenizer_config.json").get("eos_token")
    eos = _of(eos, "content") or eos
    values = {
        "generation_config.json": [read(folder / "generation_config.json").get("eos_token_id")],
        "config.json": [config.get("eos_token_id"), _of(config.get("text_config"), "eos_token_id")],
        "tokenizer.json": [tokens.get(eos) if isinstance(eos, str) else None],
    }
    return token_ids(folder, values, "stop tokens", tokens, vocabulary_size(config))


def token_ids(
    folder: Path, values: Mapping[str, Any], what: str, tokens: Mapping[str, int], vocabulary: int
) -> list[int]:
    """The ids that ``values``, by the file they stand in, name, each once and in their order.

    What is a value, and what is left out with a warning that says it is no part of ``what``: see
    ``collect``. ``tokens`` are the added tokens' ids.
    """
    ids: dict[int, None] = {}
    for name, value_of_file in values.items():
        refused, more = [], 0
        for value in _flat(value_of_file):
            try:
                ids.setdefault(_token_id(value, tokens, vocabulary))
            except ValueError as error:
                if len(refused) == _SHOWN:
                    more += 1
                else:
                    refused.append(f"{reprlib.repr(value)}, which {error}")
        if refused:
            shown = "; ".join(refused) + (f" and {more} more" if more else "")
            _warn(f"{folder / name}: left out of {what}: {shown}")
    return list(ids)


def of_gemma4(folder: str | Path | None) -> list[int]:
    """``collect(folder)`` for a Gemma 4 model.

    An empty list for other models, and where ``folder`` is empty or no model folder: a tokenizer's
    ``name_or_path`` may be either, or the name of a repository.
    """
    return collect(folder) if is_gemma4_folder(folder) else []


def is_gemma4_folder(folder: str | Path | None) -> bool:
    """Whether ``folder`` holds the config.json of a Gemma 4 model."""
    return bool(folder) and is_gemma4(read(Path(folder) / "config.json"))


def load_config(load: Callable[[str | Path], dict], folder: str | Path) -> dict:
    """The config that a host's ``load`` reads from a model folder, with all stop tokens in it.

    A generation_config.json at which ``load`` fails is kept from it. Other models, and names of
    repositories, are ``load``'s alone.
    """
    if not is_gemma4_folder(folder):
        return load(folder)
    try:
        config = load(folder)
    except Exception as error:
        try:
            with TemporaryDirectory() as without:
                shutil.copy(Path(folder) / "config.json", without)
                config = load(Path(without))
        except Exception:
            raise error from None  # it was not for generation_config.json
    if ids := collect(folder):
        config["eos_token_id"] = ids
    return config


def unite(find: Callable[[], Iterable[Any]], folder: str | Path | None) -> Any:
    """The ids that a host's ``find`` finds and those of a Gemma 4's folder, as a set.

    Nothing where ``find`` fails, and only integers, are taken from the host. Other models are
    ``find``'s alone.
    """
    ids = of_gemma4(folder)
    if not ids:
        return find()
    try:
        found = list(find())
    except Exception:
        found = []
    return {*ids, *(i for i in found if type(i) is int)}


def probe(*hosts: Callable[[Path], Iterable[Any]]) -> Finding:
    """Whether each of ``hosts`` finds the stop tokens of model folders that say them in many ways.

    Args:
        hosts: callables that give the ids at which a host would stop the model in a folder.
    """
    wrong = []
    _log.disabled = True  # the broken files below are no news to the user
    try:
        for name, (generation, config, expected) in _CASES.items():
            with TemporaryDirectory() as folder:
                _write(Path(folder), generation, config)
                for host in hosts:
                    try:
                        found = set(host(Path(folder)))
                    except Exception as error:
                        wrong.append(f"eos_token_id {name}: {type(error).__name__}")
                    else:
                        if found != expected:
                            wrong.append(
                                f"eos_token_id {name}: stops at {sorted(found, key=str)}, "
                                f"not {sorted(expected)}"
                            )
    finally:
        _log.disabled = False
    if wrong:
        cases = len(_CASES) * len(hosts)
        return Finding(True, f"{len(wrong)} of {cases} configs misread, such as {wrong[0]}")
    return Finding(
        False, f"all {len(_CASES) * len(hosts)} configs stop generation where they should"
    )


# generation_config.json, what config.json says, ids expected; <eos> is 1, <turn|> is 3
_CASES = {
    "[1, 3, 2]": (b'{"eos_token_id": [1, 3, 2]}', {}, {1, 3, 2}),
    "[3]": (b'{"eos_token_id": [3]}', {}, {1, 3}),
    '"3"': (b'{"eos_token_id": "3"}', {}, {1, 3}),
    '["<turn|>"]': (b'{"eos_token_id": ["<turn|>"]}', {}, {1, 3}),
    "[[1, 3], 2]": (b'{"eos_token_id": [[1, 3], 2]}', {}, {1, 3, 2}),
    "null beside config.json": (b'{"eos_token_id": null}', {"eos_token_id": [1, 3]}, {1, 3}),
    "text_config only": (b"{}", {"text_config": {"eos_token_id": [1, 3]}}, {1, 3}),
    "a JSON list": (b"[1, 3]", {"eos_token_id": [1, 3]}, {1, 3}),
    "bad UTF-8": (b'{"\xff": 0}', {"eos_token_id": [1, 3]}, {1, 3}),
}


def _write(folder: Path, generation: bytes, config: dict[str, Any]) -> None:
    """A model folder without weights, its tokenizer as small as transformers takes it."""
    vocabulary = ["<pad>", "<eos>", "<|tool_response>", "<turn|>", "<unk>"]
    files = {
        "config.json": {"model_type": "gemma4", "vocab_size": len(vocabulary), **config},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<eos>",
        },
        "tokenizer.json": {
            "added_tokens": [
                {
                    "id": i,
                    "content": token,
                    "special": True,
                    **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
                }
                for i, token in enumerate(vocabulary)
            ],
            "model": {
                "type": "WordLevel",
                "unk_token": "<unk>",
                "vocab": {token: i for i, token in enumerate(vocabulary)},
            },
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "generation_config.json").write_bytes(generation)


def read(file: Path) -> dict[str, Any]:
    """The JSON object in ``file``; empty where it is missing, and with a warning where broken."""
    try:
        with file.open("rb") as stream:
            data = stream.read(_LIMIT + 1)
        if len(data) > _LIMIT:
            raise ValueError(f"larger than {_LIMIT >> 20} MiB")
        content = json.loads(data)
        if not isinstance(content, dict):
            raise ValueError(f"its JSON is no object but {reprlib.repr(content)}")
        return content
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _warn(f"{file} is passed over for stop tokens: {error}")
        return {}


def added_tokens(file: Path) -> dict[str, int]:
    """Ids of the added tokens, all special ones among them, in a tokenizer.json.

    Only their part of the file is parsed: all of Gemma 4's 32 MB takes a second.
    """
    try:
        text = file.read_text(encoding="utf-8")
        start = text.index("[", text.index('"added_tokens"'))
        tokens, _ = json.JSONDecoder().raw_decode(text, start)
        return {token["content"]: token["id"] for token in tokens}
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return {}  # the host loads the same file and says what is wrong with it


def _of(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _flat(value: Any) -> Iterator[Any]:
    """The leaves of nested lists, in order, without the nulls."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left.extend(reversed(value))
        elif value is not None:
            yield value


def _token_id(value: Any, tokens: Mapping[str, int], vocabulary: int) -> int:
    """The id that a value of eos_token_id stands for.

    Raises:
        ValueError: it stands for none; the message says why.
    """
    if isinstance(value, str) and not (value.isascii() and value.isdecimal()):
        if value not in tokens:
            raise ValueError("is no added token of the tokenizer")
        value = tokens[value]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("is no token id")
    if isinstance(value, float) and not value.is_integer():
        raise ValueError("is no integer")
    if not 0 <= int(value) < vocabulary:
        raise ValueError(f"is not in the vocabulary of {vocabulary}")
    return int(value)


@functools.cache
def _warn(text: str) -> None:
    _log.warning("mlx-gemma4-patches: %s", text)
