"""Parts of requests that are images, in mlx-lm's server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mlx_gemma4_patches.hosts.mlx_lm.chat import tokenizer
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from tests.hosts.contract import PatchContract

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")


def _tokenized(messages: list[dict[str, Any]], processor: Any = None) -> Any:
    from mlx_lm.models.cache import LRUPromptCache
    from mlx_lm.server import ResponseGenerator

    server = ResponseGenerator.__new__(ResponseGenerator)
    server.prompt_cache = LRUPromptCache()
    server.model_provider = SimpleNamespace(
        model=text_model("dense"),
        model_key="a model",
        processor=processor,
        cli_args=SimpleNamespace(chat_template_args={}),
    )
    request = SimpleNamespace(
        request_type="chat", messages=messages, tools=None, role_mapping=None, prompt=""
    )
    wrapper = tokenizer(template=lambda messages, *_: str(messages))
    return server._tokenize(wrapper, request, SimpleNamespace(chat_template_kwargs=None))


class TestImageParts(PatchContract):
    id = "mlx_lm.image_parts"

    def untouched(self) -> Any:
        text = [{"type": "text", "text": "and this"}]
        told = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
        return list(_tokenized([*told, {"role": "user", "content": text}]))[:4]


def test_a_model_that_takes_no_pictures_says_why() -> None:
    pytest.importorskip("mlx_lm.processors", reason="the server of this mlx-lm takes no images")
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    with pytest.raises(ValueError, match="takes no pictures: its folder is not known"):
        _tokenized([{"role": "user", "content": [image]}])
