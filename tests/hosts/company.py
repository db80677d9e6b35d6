"""What a server owes requests in company: what a server without a drafter answers to each alone.

Conversations that begin alike, some of them further turns of others, streamed and not, at once and
one by one, some of them left in the middle.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.hosts.server import Server

_PATH = "/v1/chat/completions"
_LEAVES_AFTER = 3  # lines of a stream
_SYSTEM = "You are told of birds that fly over the sea, and come back in spring"  # four windows


def requests() -> list[dict[str, Any]]:
    """Eight bodies, which end after different numbers of tokens."""
    turn = [_message("system", _SYSTEM), _message("user", "which of them")]
    more = [*turn, _message("assistant", "those that sing"), _message("user", "and who else")]
    conversations = [
        turn,
        [_message("user", "One more")],
        more,
        [*turn[:1], _message("user", "how far")],
        turn,
        [_message("user", "The longest prompt of all is several windows long, so that keys go")],
        [*more, _message("assistant", "none"), _message("user", "why")],
        [_message("user", "A long story")],
    ]
    tokens = (24, 9, 40, 16)
    return [
        {"messages": messages, "max_tokens": tokens[i % len(tokens)], "temperature": 0}
        for i, messages in enumerate(conversations)
    ]


def texts(folder: Path, answer: Callable[[list[int], int], list[int]]) -> list[list[int]]:
    """The ids that ``answer``, given a prompt and a number of tokens, says to each request."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    made = []
    for body in requests():
        prompt = tokenizer.apply_chat_template(
            body["messages"], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        made.append([prompt[-1], *answer(prompt, body["max_tokens"])])
    return made


def answers(server: Server, folder: Path) -> list[tuple[str, str]]:
    """What each request is answered alone, whole and streamed."""
    return [(_whole(server, folder, body), _streamed(server, folder, body)) for body in requests()]


def check(server: Server, folder: Path, wanted: list[tuple[str, str]]) -> None:
    """``wanted``: ``answers`` of a server without a drafter."""
    asked = requests()

    def whole(number: int) -> None:
        assert _whole(server, folder, asked[number]) == wanted[number][0], number

    def streamed(number: int) -> None:
        assert _streamed(server, folder, asked[number]) == wanted[number][1], number

    def any_of_them(number: int) -> None:
        place = number % len(asked)
        if number % 5 == 4:
            _leave(server, folder, asked[place])
        else:
            (streamed if number % 2 else whole)(place)

    for at_once, how in ((1, whole), (len(asked), streamed), (2, whole)):
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(how, range(len(asked))))
    with ThreadPoolExecutor(3) as pool:  # who leaves or ends makes room for another
        list(pool.map(any_of_them, range(2 * len(asked))))
    whole(2)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _whole(server: Server, folder: Path, body: dict[str, Any]) -> str:
    answer = server(_PATH, {**body, "model": str(folder)})
    assert answer["usage"]["completion_tokens"] > 0, answer
    return _text(answer["choices"][0]["message"])


def _streamed(server: Server, folder: Path, body: dict[str, Any]) -> str:
    text = ""
    with server.ask(_PATH, {**body, "model": str(folder), "stream": True}) as response:
        assert response.status == 200, response.read()
        for line in response:
            data = line.decode().removeprefix("data: ").strip()
            if data.startswith("{"):
                for choice in json.loads(data).get("choices", ()):
                    text += _text(choice["delta"])
    return text


def _leave(server: Server, folder: Path, body: dict[str, Any]) -> None:
    """Hang up after a few lines of a long answer."""
    more = {"model": str(folder), "stream": True, "max_tokens": 300}
    with server.ask(_PATH, {**body, **more}) as response:
        for _ in range(_LEAVES_AFTER):
            response.readline()


def _text(message: dict[str, Any]) -> str:
    """Thoughts and what is said."""
    thought = message.get("reasoning") or message.get("reasoning_content") or ""
    return thought + (message.get("content") or "")
