"""Many requests at once to a vllm-mlx server, some of which leave before they are answered.

As a program, ``python -m tests.hosts.load REQUESTS AT_ONCE`` starts the server, asks and prints
what came back and how much memory the server had.
"""

from __future__ import annotations

import dataclasses
import random
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from tests.hosts import batching, chat
from tests.hosts.server import Server, serve

_WORDS = ("birds", "fly", "over", "the", "sea", "and", "come", "back", "in", "spring")
_LEAVES_AFTER = 3  # chunks of a stream


_PATH = "/v1/chat/completions"


@dataclasses.dataclass
class Report:
    answered: list[int] = dataclasses.field(default_factory=list)  # numbers of requests
    cancelled: list[int] = dataclasses.field(default_factory=list)
    wrong: list[str] = dataclasses.field(default_factory=list)
    memory: list[int] = dataclasses.field(default_factory=list)  # bytes, after each of the crowd


@dataclasses.dataclass(frozen=True)
class _Request:
    text: str
    images: tuple[int, ...]
    has_tools: bool
    tokens: int

    def body(self, folder: Path) -> dict[str, Any]:
        urls = [batching.image(seed) for seed in self.images]
        return {
            **({"tools": chat.TOOLS} if self.has_tools else {}),
            "model": str(folder),
            "messages": [batching.message(self.text, *urls)],
            "max_tokens": self.tokens,
            "temperature": 0,
        }


def requests(count: int) -> list[_Request]:
    """Texts of 2 to 60 words, each its own.

    Every fourth asks about one or two images, every third may call a tool.
    """
    rng = random.Random(0)
    made = []
    for number in range(count):
        words = " ".join(rng.choices(_WORDS, k=rng.choice((2, 5, 12, 30, 60))))
        images = tuple(rng.sample(range(4), k=rng.choice((1, 2)))) if number % 4 == 3 else ()
        made.append(_Request(f"{number} {words}", images, number % 3 == 1, rng.choice((4, 8, 16))))
    return made


def run(server: Server, folder: Path, count: int, at_once: int) -> Report:
    """Ask everything alone, then in a crowd, of which one in ten leaves in the middle.

    Wrong is what the crowd is answered otherwise than alone.
    """
    asked = [request.body(folder) for request in requests(count)]
    alone = [_answer(server, body) for body in asked]
    report = Report()
    process = psutil.Process(server.process.pid)

    def one(number: int) -> None:
        if number % 10 == 9:
            _leave(server, asked[number])
            report.cancelled.append(number)
        elif (answer := _answer(server, asked[number])) == alone[number]:
            report.answered.append(number)
        else:
            report.wrong.append(f"{number}: {answer!r} instead of {alone[number]!r}")
        report.memory.append(process.memory_info().rss)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(one, range(count)))
    return report


def _answer(server: Server, body: dict[str, Any]) -> str:
    answer = server(_PATH, body)
    assert answer["usage"]["completion_tokens"] > 0, answer
    return answer["choices"][0]["message"]["content"]


def _leave(server: Server, body: dict[str, Any]) -> None:
    """Hang up after a few chunks of a long answer."""
    with server.ask(_PATH, {**body, "stream": True, "max_tokens": 500}) as response:
        for _ in range(_LEAVES_AFTER):
            response.readline()


if __name__ == "__main__":
    count, at_once = map(int, sys.argv[1:])
    with tempfile.TemporaryDirectory() as temporary:
        folder = batching.save("dense", Path(temporary) / "gemma-4", batching.PLAIN_TEMPLATE)
        arguments = ["--continuous-batching", "--mllm"]
        with serve("vllm_mlx", folder, *arguments) as server:
            report = run(server, folder, count, at_once)
    print(
        f"{len(report.answered)} right, {len(report.cancelled)} cancelled", *report.wrong, sep="\n"
    )
    for done in (1, *range(max(1, count // 8), count + 1, max(1, count // 8))):
        print(f"after {done}: {report.memory[done - 1] / 2**20:.1f} MiB")
