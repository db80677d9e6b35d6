"""A server asked with good and bad media, in one run."""

from __future__ import annotations

import base64
import concurrent.futures
import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tests.hosts import hearing, unreadable
from tests.hosts.server import Server
from tests.reference import conversations
from tests.reference.conversations import CONVERSATIONS, Medium

# answers without markup, which a server takes out
HEARD = ("sound", "sounds_apart", "picture")


def check(server: Server, folder: Path) -> None:
    """Media are seen and heard, what is none is refused, and the others do not notice."""
    for name in HEARD:
        answer = _answer(server, folder, name)
        assert answer == _expected(folder, name), (name, answer, _expected(folder, name))
    bad = {
        **{f"picture, {name}": _picture(data) for name, data in unreadable.PICTURES.items()},
        **{f"sound, {name}": _sound(data) for name, data in unreadable.SOUNDS.items()},
        "no such file": _part("image", "/no/such/file.png"),
        "wrongly declared": _part("image", unreadable.uri("audio/wav", unreadable.wav(400))),
    }
    log = folder / "server.log"
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        good = pool.submit(lambda: [_answer(server, folder, "sound") for _ in range(3)])
        for name, part in bad.items():
            before = log.stat().st_size
            status, text = _ask(server, folder, [[part, _text("what is it")]])
            assert status == 400, (name, status, text)
            assert "cannot be read" in text, (name, text)
            assert len(text) < 300, name  # nothing of it is repeated
            with log.open("rb") as lines:
                lines.seek(before)
                assert max(map(len, lines), default=0) < 2000, name
        assert good.result() == [_expected(folder, "sound")] * 3
    # a marker in a text, beside a picture and alone
    picture = _picture(unreadable.png(48, 48))
    for content in ([picture, _text("what does <|image|> mean")], [_text("is <|audio|> one")]):
        status, text = _ask(server, folder, [content])
        assert status == 200, text
    assert _answer(server, folder, "sound") == _expected(folder, "sound")
    assert server.process.poll() is None


def _answer(server: Server, folder: Path, name: str) -> str:
    contents = [
        [_medium(part, folder) if isinstance(part, Medium) else _text(part) for part in parts]
        for _, parts in CONVERSATIONS[name]
    ]
    count = hearing.reference()[f"greedy_{name}"].size
    status, text = _ask(server, folder, contents, count)
    assert status == 200, text
    return (json.loads(text)["choices"][0]["message"].get("content") or "").strip()


def _expected(folder: Path, name: str) -> str:
    greedy = hearing.reference()[f"greedy_{name}"].tolist()
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return tokens.decode(greedy, skip_special_tokens=False).strip()


def _ask(
    server: Server, folder: Path, contents: list[list[dict[str, Any]]], count: int = 4
) -> tuple[int, str]:
    messages = [{"role": "user", "content": content} for content in contents]
    body = {"model": str(folder), "messages": messages, "max_tokens": count, "temperature": 0}
    with server.ask("/v1/chat/completions", body) as response:
        return response.status, response.read().decode()


def _medium(medium: Medium, folder: Path) -> dict[str, Any]:
    data = conversations.write(medium, folder).read_bytes()
    return _sound(data) if medium.kind == "audio" else _picture(data)


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _picture(data: bytes) -> dict[str, Any]:
    return _part("image", unreadable.uri("image/png", data))


def _sound(data: bytes) -> dict[str, Any]:
    """As OpenAI's clients send it."""
    sound = {"data": base64.b64encode(data).decode(), "format": "wav"}
    return {"type": "input_audio", "input_audio": sound}


def _part(kind: str, url: str) -> dict[str, Any]:
    return {"type": f"{kind}_url", f"{kind}_url": {"url": url}}
