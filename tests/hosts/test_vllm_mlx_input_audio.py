"""A sound in a request arrives, whatever its client calls it."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import pytest

from mlx_gemma4_patches.gemma4 import channels
from tests.hosts import batching, unreadable
from tests.hosts.contract import PatchContract, patched, skip_unless_needed, stock

server = pytest.importorskip("vllm_mlx.server")
models = pytest.importorskip("vllm_mlx.api.models")

HTTPException = pytest.importorskip("fastapi").HTTPException

ID = "vllm_mlx.input_audio"
DATA = base64.b64encode(unreadable.wav(400)).decode()
URI = unreadable.uri("audio/wav", unreadable.wav(400))
SOUND = {"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}}
TEXT = {"type": "text", "text": "hear"}


def engine(opening: int | None = channels.OPENING_ID) -> Any:
    tokenizer = SimpleNamespace(convert_tokens_to_ids=lambda _: opening)
    return SimpleNamespace(is_mllm=True, tokenizer=tokenizer)


def prepared(content: Any, by: Any = None) -> Any:
    """What the server makes of a request with one message."""
    request = models.ChatCompletionRequest(
        model="m", messages=[{"role": "user", "content": content}]
    )
    return server._prepare_chat_messages(by or engine(), request.messages)


class TestInputAudio(PatchContract):
    id = ID

    def untouched(self):
        image = {"type": "image_url", "image_url": {"url": batching.image(0)}}
        sound = {"type": "audio_url", "audio_url": URI}
        request = models.ChatCompletionRequest(
            model="m", messages=[{"role": "user", "content": [TEXT, SOUND]}]
        )
        return [
            list(prepared("hi")),
            list(prepared([TEXT, image, sound])),
            list(prepared([TEXT, SOUND], engine(None))),  # another model
            request.model_dump(),
        ]


@pytest.mark.parametrize("sound", [SOUND["input_audio"], {"data": URI}, URI])
def test_it_becomes_what_the_host_understands(sound) -> None:
    skip_unless_needed(ID)
    url = {"url": URI}
    content = [TEXT, {"type": "input_audio", "input_audio": sound}]
    with patched(ID):
        (message,), *_, has_media = prepared(content)
    assert has_media
    assert message["content"] == [TEXT, {"type": "audio_url", "audio_url": url}]
    with stock(ID):
        assert not prepared(content)[-1]


def test_messages_that_are_dictionaries_are_left_as_they_are() -> None:
    skip_unless_needed(ID)
    message = {"role": "user", "content": [TEXT, SOUND]}
    with patched(ID):
        (made,), *_ = server._prepare_chat_messages(engine(), [message])
    assert made["content"][1]["type"] == "audio_url"
    assert message["content"] == [TEXT, SOUND]


@pytest.mark.parametrize("sound", [None, "UklGRg==", {}, {"data": None}, {"format": "../x"}])
def test_a_part_without_a_sound_is_refused(sound) -> None:
    skip_unless_needed(ID)
    with patched(ID), pytest.raises(HTTPException, match="the sound cannot be read"):
        prepared([{"type": "input_audio", "input_audio": sound}])


def test_the_routes_of_the_server_keep_it_too() -> None:
    skip_unless_needed(ID)
    body = {"model": "m", "messages": [{"role": "user", "content": [SOUND]}]}
    (field,) = [
        field
        for route in server.app.routes
        for field in getattr(getattr(route, "dependant", None), "body_params", [])
        if field.field_info.annotation is models.ChatCompletionRequest
    ]
    with patched(ID):
        request, _ = field.validate(body, loc=("body",))
        *_, has_media = server._prepare_chat_messages(engine(), request.messages)
    assert has_media
