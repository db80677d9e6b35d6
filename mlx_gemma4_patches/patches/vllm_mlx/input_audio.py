"""A sound in a request, as OpenAI's clients send it, is dropped without a word.

What the user sees: an answer to the words alone, as if no sound had been sent.

Why: the model of a request's parts has no field ``input_audio``, so that it is gone once the
request is read; what collects the sounds knows ``audio_url`` alone.

The fix: parts keep it, where only we look, and for Gemma 4 such a part becomes an ``audio_url``
with the same sound as a data URI. It can be deleted when ``ContentPart`` has the field.
"""

from __future__ import annotations

import base64
import io
import warnings
import wave
from types import SimpleNamespace
from typing import Any

from ...gemma4.channels import OPENING_ID
from ...hosts.vllm_mlx.models import is_gemma4
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_MODELS = "vllm_mlx.api.models"
_PART = f"{_MODELS}:ContentPart"
# each is part of the next; what pydantic has made of them
_READ_TOGETHER = ("ContentPart", "Message", "ChatCompletionRequest")
_MADE = ("__pydantic_core_schema__", "__pydantic_validator__", "__pydantic_serializer__")
_SCHEMA = "__get_pydantic_core_schema__"
_APP = "vllm_mlx.server:app"
_PREPARE = "vllm_mlx.server:_prepare_chat_messages"


def probe() -> Finding:
    from vllm_mlx import server
    from vllm_mlx.api.models import Message

    if not hasattr(server, "_prepare_chat_messages"):
        raise NotApplicable("this vllm-mlx hears no sounds")
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes(bytes(2 * 16_000))
    data = base64.b64encode(file.getvalue()).decode()
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    engine = SimpleNamespace(
        is_mllm=True,
        tokenizer=SimpleNamespace(convert_tokens_to_ids=lambda _: OPENING_ID),
    )
    # as a request is read
    message = Message.model_validate({"role": "user", "content": [part]})
    *_, has_media = server._prepare_chat_messages(engine, [message])
    return Finding(not has_media, f"a request with a sound has {'a' if has_media else 'no'} sound")


def apply(surgery: Surgery) -> None:
    _keep_when_read(surgery)
    surgery.wrap(_PREPARE, _as_audio_url)


def _keep_when_read(surgery: Surgery) -> None:
    """Have pydantic read the classes anew, with a part that keeps its sound."""
    classes = [surgery.resolve(f"{_MODELS}:{name}") for name in _READ_TOGETHER]
    surgery.add(f"{_PART}.{_SCHEMA}", classmethod(_schema))
    before = [{name: vars(cls)[name] for name in _MADE} for cls in classes]
    for cls in classes:
        cls.model_rebuild(force=True)
    after = [{name: vars(cls)[name] for name in _MADE} for cls in classes]
    for cls, old, new in zip(classes, before, after, strict=True):
        for name in _MADE:
            setattr(cls, name, old[name])
            surgery.replace(f"{_MODELS}:{cls.__name__}.{name}", new[name])
    with warnings.catch_warnings():  # FastAPI hides them too
        warnings.simplefilter("ignore")
        for adapter in _adapters(surgery.resolve(_APP), classes):
            adapter.rebuild(force=True)


def _adapters(app: Any, classes: list[type]) -> list[Any]:
    """What reads the bodies of requests into ``classes``; each has a copy of how it is done."""
    dependants = [route.dependant for route in app.routes if hasattr(route, "dependant")]
    fields = [field for dependant in dependants for field in dependant.body_params]
    return [field._type_adapter for field in fields if field.field_info.annotation in classes]


def _schema(cls, source, handler):
    from pydantic_core import core_schema

    def read(value, read_part):
        part = read_part(value)
        if isinstance(value, dict) and value.get("type") == "input_audio":
            # not a field, so that whatever writes the part leaves it out as before
            object.__setattr__(
                part, "__pydantic_extra__", {"input_audio": value.get("input_audio")}
            )
        return part

    return core_schema.no_info_wrap_validator_function(read, handler(source))


def _as_audio_url(original):
    def _prepare_chat_messages(engine, request_messages):
        if is_gemma4(engine):
            request_messages = [_with_audio_urls(message) for message in request_messages]
        return original(engine, request_messages)

    return _prepare_chat_messages


def _with_audio_urls(message: Any) -> Any:
    content = _get(message, "content")
    if not isinstance(content, list):
        return message
    made = [_audio_url(part) or part for part in content]
    if all(new is old for new, old in zip(made, content, strict=True)):
        return message
    if isinstance(message, dict):
        return {**message, "content": made}
    return message.model_copy(update={"content": made})


def _audio_url(part: Any) -> Any:
    """The part that this host understands for one that it does not, else None."""
    if _get(part, "type") != "input_audio":
        return None
    sound = _get(part, "input_audio")
    url = sound if isinstance(sound, str) else _url(sound or {})
    made = {"type": "audio_url", "audio_url": {"url": url}}
    return made if isinstance(part, dict) else type(part)(**made)


def _url(sound: dict[str, Any]) -> str:
    data = str(sound.get("data") or sound.get("url") or "")
    if data.startswith("data:") or not data:
        return data
    kind = "".join(filter(str.isalnum, str(sound.get("format") or ""))) or "wav"
    return f"data:audio/{kind};base64,{data}"


def _get(owner: Any, name: str) -> Any:
    return owner.get(name) if isinstance(owner, dict) else getattr(owner, name, None)


PATCH = Patch(id="vllm_mlx.input_audio", targets=(_PART, _PREPARE), apply=apply, probe=probe)
