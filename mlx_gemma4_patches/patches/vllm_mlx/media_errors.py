"""A picture, sound or video that cannot be read is a 500 without a reason.

What the user sees: "Internal Server Error" for a damaged file, and a traceback in the log, or an
answer to the words alone.

Why: media are read where the model works, and what goes wrong there is the server's fault.

The fix: for Gemma 4 what a request brings along is read before it is queued, and what cannot be
read is 400 with one sentence. Media that the server fetches itself are read where they were. It
can be deleted when the server answers 400 to them.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from types import SimpleNamespace
from typing import Any

from ...gemma4 import channels, parts, soft_tokens, unreadable
from ...hosts.vllm_mlx.models import is_gemma4
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_PREPARE = "vllm_mlx.server:_prepare_chat_messages"
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


def _refusing(original):
    def _prepare_chat_messages(engine, request_messages):
        prepared = original(engine, request_messages)
        if is_gemma4(engine) and getattr(engine, "is_mllm", False):
            _check(prepared[0])
        return prepared

    return _prepare_chat_messages


def _check(messages: list[dict[str, Any]]) -> None:
    from fastapi import HTTPException

    contents = [content for m in messages if isinstance(content := m.get("content"), list)]
    listed = [part for content in contents for part in content if isinstance(part, dict)]
    media = [(_KINDS[part["type"]], part) for part in listed if part.get("type") in _KINDS]
    count = Counter(kind for kind, _ in media)
    seen: Counter[str] = Counter()
    for kind, part in media:
        seen[kind] += 1
        try:
            _read(kind, _url(part))
        except Exception as error:
            text = unreadable.sentence(kind, seen[kind], count[kind], error)
            raise HTTPException(status_code=400, detail=text) from None


def _url(part: dict[str, Any]) -> str:
    """The source of a part, as the host takes it out; "" where it has none."""
    value = part.get(part["type"]) or part.get("url") or ""
    if isinstance(value, dict):
        value = value.get("url") or ""
    return value if isinstance(value, str) else ""


def _read(kind: str, url: str) -> None:
    from vllm_mlx.models import mllm

    if url.startswith(("http://", "https://")):
        return
    if not url.startswith("data:"):
        if kind == "audio" and url:
            _hear(mllm.process_audio_input(url))
            return
        raise unreadable.Refused("it is neither an http(s) URL nor a data URI")
    if not url.startswith(f"data:{kind}/"):
        raise unreadable.Refused(f"its data URI is not of type {kind}/...")
    if kind == "video":
        file = mllm.process_video_input(url)
        try:
            unreadable.check_video(file)
        finally:
            mllm.cleanup_temp_file(file)
        return
    data = io.BytesIO(base64.b64decode(url.partition(",")[2]))
    if kind == "audio":
        _hear(data)
    else:
        from PIL import Image

        Image.open(data).load()


def _hear(source: Any) -> None:
    from mlx_vlm.utils import load_audio

    unreadable.check_size(source)
    unreadable.check_length(load_audio(source, sr=soft_tokens.SAMPLE_RATE).shape[0])


PATCH = Patch(id="vllm_mlx.media_errors", targets=(_PREPARE,), apply=apply, probe=probe)
