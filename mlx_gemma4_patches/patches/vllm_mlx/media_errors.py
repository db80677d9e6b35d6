"""A picture, sound or video that cannot be read is a 500 without a reason.

What the user sees: "Internal Server Error" for a damaged file, and a traceback in the log, or an
answer to the words alone.

Why: media are read where the model works, and what goes wrong there is the server's fault.

The fix: for Gemma 4 what a request brings along is read before it is queued, and what cannot be
read is 400 with one sentence. What is to be fetched is fetched then too, beside the event loop and
within the host's limits, and goes on as a data URI; where the answer is a stream, which has begun
by then, the sentence breaks it. It can be deleted when the server answers 400 to them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from ...gemma4 import channels, parts, soft_tokens, unreadable
from ...hosts.vllm_mlx.models import is_gemma4
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_PREPARE = "vllm_mlx.server:_prepare_chat_messages"
_ENGINES = ("vllm_mlx.engine.simple:SimpleEngine", "vllm_mlx.engine.batched:BatchedEngine")
# what the host takes for media
_KINDS = {name: kind for kind in parts.KINDS for name in (kind, f"{kind}_url")}


def probe() -> Finding:
    from fastapi import HTTPException
    from vllm_mlx import server

    if not hasattr(server, "_prepare_chat_messages"):
        raise NotApplicable("this vllm-mlx prepares each kind of request by itself")
    engine = SimpleNamespace(
        is_mllm=True,
        tokenizer=SimpleNamespace(convert_tokens_to_ids=lambda _: channels.OPENING_ID),
    )
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,c2VjcmV0"}}
    try:
        server._prepare_chat_messages(engine, [{"role": "user", "content": [part]}])
    except HTTPException as error:
        is_told = error.status_code == 400 and "cannot be read" in error.detail
        return Finding(not is_told, f"a picture of 6 bytes is a {error.status_code}")
    return Finding(True, "a picture of 6 bytes is handed to the model")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_PREPARE, _refusing)
    for engine in _ENGINES:
        surgery.wrap(f"{engine}.chat", _fetching)
        surgery.wrap(f"{engine}.stream_chat", _fetching_first)


def _refusing(original):
    def _prepare_chat_messages(engine, request_messages):
        prepared = original(engine, request_messages)
        if _sees(engine):
            for medium in _media(prepared[0]):
                if not _is_remote(medium.url):
                    _told(medium, _read)
        return prepared

    return _prepare_chat_messages


def _fetching(original):
    async def chat(self, messages, *args, **kwargs):
        if _sees(self):
            messages = await _with_fetched(messages)
        return await original(self, messages, *args, **kwargs)

    return chat


def _fetching_first(original):
    async def stream_chat(self, messages, *args, **kwargs):
        if _sees(self):
            messages = await _with_fetched(messages)
        # closed with ours, so that a client who leaves ends the request
        async with contextlib.aclosing(original(self, messages, *args, **kwargs)) as outputs:
            async for output in outputs:
                yield output

    return stream_chat


def _sees(engine: Any) -> bool:
    return bool(getattr(engine, "is_mllm", False)) and is_gemma4(engine)


class _Medium(NamedTuple):
    """The ``number``-th of ``count`` of its kind in a request."""

    kind: str
    part: dict[str, Any]
    number: int
    count: int

    @property
    def url(self) -> str:
        return _url(self.part)


def _media(messages: list[dict[str, Any]]) -> list[_Medium]:
    contents = [content for m in messages if isinstance(content := m.get("content"), list)]
    listed = [part for content in contents for part in content if isinstance(part, dict)]
    media = [(_KINDS[part["type"]], part) for part in listed if part.get("type") in _KINDS]
    count = Counter(kind for kind, _ in media)
    seen: Counter[str] = Counter()
    made = []
    for kind, part in media:
        seen[kind] += 1
        made.append(_Medium(kind, part, seen[kind], count[kind]))
    return made


def _told(medium: _Medium, read: Callable[[str, str], Any]) -> Any:
    """What ``read`` makes of a medium; 400 where it cannot."""
    from fastapi import HTTPException

    try:
        return read(medium.kind, medium.url)
    except Exception as error:
        text = unreadable.sentence(medium.kind, medium.number, medium.count, error)
        raise HTTPException(status_code=400, detail=text) from None


async def _with_fetched(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with data URIs for what has to be fetched."""
    fetched = {
        id(medium.part): await asyncio.to_thread(_told, medium, _fetch)
        for medium in _media(messages)
        if _is_remote(medium.url)
    }
    if not fetched:
        return messages

    def local(part: Any) -> Any:
        uri = fetched.get(id(part))
        return {**part, part["type"]: {"url": uri}} if uri else part

    contents = [message.get("content") for message in messages]
    return [
        {**message, "content": [local(part) for part in content]}
        if isinstance(content, list)
        else message
        for message, content in zip(messages, contents, strict=True)
    ]


def _is_remote(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _url(part: dict[str, Any]) -> str:
    """The source of a part, as the host takes it out; "" where it has none."""
    value = part.get(part["type"]) or part.get("url") or ""
    if isinstance(value, dict):
        value = value.get("url") or ""
    return value if isinstance(value, str) else ""


def _read(kind: str, url: str) -> None:
    from vllm_mlx.models import mllm

    if url.startswith("data:") and not url.startswith(f"data:{kind}/"):
        raise unreadable.Refused(f"its data URI is not of type {kind}/...")
    if kind == "image" and mllm.is_base64_image(url):
        _look(kind, io.BytesIO(base64.b64decode(url.partition(",")[2] or url)))
    elif kind == "audio" and mllm.is_base64_audio(url):
        _look(kind, io.BytesIO(base64.b64decode(url.partition(",")[2])))
    elif url and (kind == "audio" or (kind == "video" and mllm.is_base64_video(url))):
        with _file(kind, url) as file:
            _look(kind, file)
    else:
        raise unreadable.Refused("it is neither an http(s) URL nor a data URI")


def _fetch(kind: str, url: str) -> str:
    """What is at ``url``, as a data URI."""
    from requests import RequestException
    from vllm_mlx.models import mllm

    try:
        with _file(kind, url) as file:
            _look(kind, file)
            form = "".join(filter(str.isalnum, Path(file).suffix)) or "unknown"
            return f"data:{kind}/{form};base64,{base64.b64encode(Path(file).read_bytes()).decode()}"
    except mllm.FileSizeExceededError:
        raise unreadable.Refused("it is larger than the server takes") from None
    except (RequestException, mllm.UnsafeRemoteURLError):
        raise unreadable.Refused("it cannot be fetched from its address") from None


@contextlib.contextmanager
def _file(kind: str, url: str) -> Iterator[str]:
    """A medium as the host makes a file of it, which is left where it was the client's own."""
    from vllm_mlx.models import mllm

    file = getattr(mllm, f"process_{kind}_input")(url)
    try:
        yield file
    finally:
        if file != url:
            mllm.cleanup_temp_file(file)


def _look(kind: str, source: Any) -> None:
    """Raise what is wrong with a medium, a file or its bytes."""
    if kind == "video":
        unreadable.check_video(source)
    elif kind == "image":
        from PIL import Image

        Image.open(source).load()
    else:
        from mlx_vlm.utils import load_audio

        unreadable.check_size(source)
        unreadable.check_length(load_audio(source, sr=soft_tokens.SAMPLE_RATE).shape[0])


PATCH = Patch(
    id="vllm_mlx.media_errors",
    targets=(
        _PREPARE,
        *(f"{e}.{name}(self, messages)" for e in _ENGINES for name in ("chat", "stream_chat")),
    ),
    apply=apply,
    probe=probe,
)
