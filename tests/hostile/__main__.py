"""A host's real server and hostile requests: with the patches it answers no worse than without.

``python -m tests.hostile HOST ARGUMENTS...`` runs the server twice, stock and patched, and after
every request asks it for a plain answer. It ends with 1 where an answer got worse, where only the
patched server is dead, or where an error of ours is in the log.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mlx_gemma4_patches.settings import PREFIX
from tests.hosts import chat
from tests.hosts.server import Server, serve

from . import requests

_PATHS = {
    "mlx_lm": (requests.CHAT,),
    "mlx_vlm": (requests.CHAT, requests.MESSAGES, "/v1/responses"),
    "vllm_mlx": (
        requests.CHAT,
        requests.MESSAGES,
        "/v1/messages/count_tokens",
        "/v1/responses",
    ),
}
_PATIENCE = 240  # seconds for an answer; a busy machine is no failure
_OURS = re.compile(r'File "[^"]*mlx_gemma4_patches[^"]*", line \d+, in \w+\n(?:    .*\n)*(?=\S)')
_NO_ANSWER = 599  # the connection is closed, or nothing comes
# vllm-mlx answers to the place of a picture in the prompt, where no picture is
_RIGHTLY_REFUSED = {"no image"}


def main(host: str, *arguments: str) -> int:
    with tempfile.TemporaryDirectory() as place:
        folder = chat.save(Path(place) / "gemma-4-tiny")
        asked = requests.of(str(folder), _PATHS[host])
        stock, _ = _run(host, folder, asked, arguments, patched=False)
        patched, ours = _run(host, folder, asked, arguments, patched=True)
    worse = 0
    for name in stock:
        if stock[name] != patched[name]:
            is_worse = _is_worse(name, stock[name], patched[name])
            worse += is_worse
            print(f"{'WORSE' if is_worse else 'other'}  {name}: {stock[name]} -> {patched[name]}")
    print(*ours, sep="\n")
    print(f"{host} {' '.join(arguments)}: {len(stock)} requests, {worse} worse")
    return 1 if worse or ours else 0


def _is_worse(name: str, stock: tuple[int, bool], patched: tuple[int, bool]) -> bool:
    """Of statuses, and whether the server is alive: refusing well is no worse than failing."""
    if name in _RIGHTLY_REFUSED and patched == (400, True):
        return False
    return patched[1] < stock[1] or patched[0] // 100 > stock[0] // 100


def _run(
    host: str, folder: Path, asked: dict, arguments: tuple[str, ...], patched: bool
) -> tuple[dict[str, tuple[int, bool]], list[str]]:
    """Status, and whether the server is alive behind it, by request; errors of ours in the log."""
    os.environ[PREFIX] = "1" if patched else "0"
    left, found, ours = list({**asked, **_RUDE}), {}, []
    while left:
        with serve(host, folder, *arguments) as server:
            while left:
                name = left.pop(0)
                status = (
                    _RUDE[name](server, folder) if name in _RUDE else _status(server, *asked[name])
                )
                is_alive = _status(server, requests.CHAT, requests.plain(str(folder))) == 200
                found[name] = (status, is_alive)
                print(f"{'patched' if patched else 'stock':7} {status} {name}", flush=True)
                if not is_alive:
                    break
        ours += _OURS.findall((folder / "server.log").read_text(errors="replace"))
    return found, ours


def _status(server: Server, path: str, body: bytes) -> int:
    with contextlib.suppress(OSError), _sent(server, _head(path, len(body)) + body) as connection:
        return _answered(connection)
    return _NO_ANSWER


def _answered(connection: socket.socket) -> int:
    """The status of a whole answer."""
    connection.settimeout(_PATIENCE)
    answer = b""
    with contextlib.suppress(OSError):
        while part := connection.recv(1 << 16):
            answer += part
    status = re.match(rb"HTTP/1\.\d (\d+)", answer)
    return int(status[1]) if status else _NO_ANSWER


def _head(path: str, length: int | str) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


# what is rude in how a request is sent and its answer is read


def _stream(folder: Path, count: int = 64) -> bytes:
    body = json.loads(requests.plain(str(folder)))
    return json.dumps({**body, "stream": True, "max_tokens": count}).encode()


@contextlib.contextmanager
def _sent(server: Server, data: bytes) -> Iterator[socket.socket]:
    with contextlib.closing(socket.create_connection(("127.0.0.1", server.port), _PATIENCE)) as s:
        s.sendall(data)
        yield s


def _hang_up(server: Server, folder: Path) -> int:
    for _ in range(4):
        body = _stream(folder)
        with _sent(server, _head(requests.CHAT, len(body)) + body) as connection:
            connection.recv(10)
    return 0


def _hang_up_at_once(server: Server, folder: Path) -> int:
    for _ in range(4):
        body = _stream(folder)
        with _sent(server, _head(requests.CHAT, len(body)) + body):
            pass
    return 0


def _read_slowly(server: Server, folder: Path) -> int:
    body = _stream(folder)
    with _sent(server, _head(requests.CHAT, len(body)) + body) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        time.sleep(2)
        return _answered(connection)


def _send_half(server: Server, folder: Path) -> int:
    body = _stream(folder)
    with _sent(server, _head(requests.CHAT, len(body)) + body[:20]):
        return 0


def _say_a_negative_length(server: Server, folder: Path) -> int:
    with _sent(server, _head(requests.CHAT, "x")) as connection:
        connection.shutdown(socket.SHUT_WR)
        return _answered(connection)


_RUDE = {
    "hang up in a stream": _hang_up,
    "hang up at once": _hang_up_at_once,
    "read slowly": _read_slowly,
    "send half": _send_half,
    "a length that is no number": _say_a_negative_length,
}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
