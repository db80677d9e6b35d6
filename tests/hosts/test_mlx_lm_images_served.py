"""mlx-lm's own image path with Gemma 4: its command line and its server, since 0.32.1."""

from __future__ import annotations

import base64
import json
import runpy
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

pytest.importorskip("mlx_lm.processors", reason="no image path in this mlx-lm")
pytest.importorskip("mlx_vlm")

from tests.hosts import hearing, machines, sharded
from tests.hosts.server import Server, serve
from tests.reference import conversations

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hearing.save(tmp_path_factory.mktemp("gemma-4"))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serve("mlx_lm", folder) as made:
        yield made


def _said(folder: Path) -> tuple[str, int]:
    """What transformers says to the conversation "picture", and in how many tokens."""
    tokens = hearing.reference()["greedy_picture"].tolist()
    return Tokenizer.from_file(str(folder / "tokenizer.json")).decode(tokens), len(tokens)


def _url(folder: Path, name: str) -> str:
    data = base64.b64encode((folder / f"{name}.png").read_bytes()).decode()
    return f"data:image/png;base64,{data}"


def _about(url: str, text: str = "what is it") -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    return {"role": "user", "content": parts}


def _ask(server: Server, *messages: dict[str, Any], count: int = 12) -> tuple[str, int, int]:
    """The answer, tokens of the prompt, and how many of them were read before."""
    answer = server(CHAT, {"messages": messages, "max_tokens": count, "temperature": 0.0})
    usage = answer["usage"]
    message = answer["choices"][0]["message"]
    text = message.get("content") or message.get("reasoning") or ""
    details = usage.get("prompt_tokens_details") or {}
    return text, usage["prompt_tokens"], details.get("cached_tokens", 0)


@pytest.mark.parametrize("prompt", ["<|image|>what is it", "what is it"])
def test_the_command_line_says_what_transformers_says(
    folder: Path, prompt: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, count = _said(folder)
    picture = str(folder / "wide.png")
    more = ["--max-tokens", str(count), "--temp", "0", "--verbose", "False"]
    options = ["--model", str(folder), "--image", picture, "--prompt", prompt, *more]
    monkeypatch.setattr(sys, "argv", ["mlx_lm.generate", *options])
    runpy.run_module("mlx_lm.generate", run_name="__main__", alter_sys=True)
    assert text in capsys.readouterr().out


def test_the_server_says_what_transformers_says_and_reads_a_picture_once(
    server: Server, folder: Path
) -> None:
    text, count = _said(folder)
    ids = hearing.reference()["ids_picture"].tolist()
    first = _about(_url(folder, "wide"))
    answer, prompt, cached = _ask(server, first, count=count)
    assert (answer, prompt, cached) == (text, len(ids), 0)
    turns = [first, {"role": "assistant", "content": answer}, {"role": "user", "content": "why"}]
    behind_the_picture = len(ids) - ids[::-1].index(502)
    assert _ask(server, *turns)[2] >= behind_the_picture
    # as large as the first, and another
    other = _about(_turned(folder))
    _, prompt, cached = _ask(server, other, count=count)
    assert prompt == len(ids) and cached < ids.index(502)


@pytest.mark.parametrize("way", machines.WAYS)
def test_so_does_the_server_of_two_processes(way: str, tmp_path: Path) -> None:
    folder = machines.index(hearing.save(tmp_path))
    text, count = _said(folder)
    ids = hearing.reference()["ids_picture"].tolist()
    first = _about(_url(folder, "wide"))
    with serve("mlx_lm", folder, *machines.WAYS[way], launcher=sharded.launcher(2)) as server:
        answer, prompt, cached = _ask(server, first, count=count)
        assert (answer, prompt, cached) == (text, len(ids), 0)
        turns = [
            first,
            {"role": "assistant", "content": answer},
            {"role": "user", "content": "why"},
        ]
        assert _ask(server, *turns)[2] >= len(ids) - ids[::-1].index(502)  # behind the picture
        assert _ask(server, first, count=count)[0] == text


def _turned(folder: Path) -> str:
    from PIL import Image

    file = folder / "turned.png"
    Image.open(folder / "wide.png").transpose(Image.Transpose.ROTATE_180).save(file)
    return _url(folder, "turned")


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,bm8gcGljdHVyZQ==",
        "data:image/png;base64,x",
        "http://127.0.0.1:9/missing.png",
        "/etc/hostname",
        "",
    ],
)
def test_a_picture_that_is_broken_or_missing_is_the_clients_error(
    server: Server, folder: Path, url: str
) -> None:
    with server.ask(CHAT, {"messages": [_about(url)], "max_tokens": 4}) as response:
        answer = response.read().decode()
    assert 400 <= response.status < 500
    assert json.loads(answer)["error"]
    assert server.process.poll() is None
    text, count = _said(folder)
    assert _ask(server, _about(_url(folder, "wide")), count=count)[0] == text


def test_texts_and_pictures_at_once_are_answered_as_alone(server: Server, folder: Path) -> None:
    asked = [
        [_about(_url(folder, "wide"))],
        [{"role": "user", "content": "tell me of the sea"}],
        [_about(_url(folder, "tall"), "and this")],
        [{"role": "user", "content": "and of the hills"}],
    ]
    alone = [_ask(server, *messages)[0] for messages in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(lambda messages: _ask(server, *messages)[0], asked))
    assert together == alone
    assert alone[0].startswith(_said(folder)[0])
    assert conversations.PICTURES  # both are in the folder
