"""The server shows Gemma 4 no image, and answers without it.

What the user sees: the answer to a request with an ``image_url`` part is a wrong number of
placeholders, or "Only 'text' content type is supported"; a picture that is broken is answered with
what a decoder says of it.

Why: the server hands the parts of a message to the chat template as the client has them, and Gemma
4's template knows ``{"type": "image"}`` alone.

What is added: the parts of an image become what the template knows, and what is wrong with a
picture is said in words. It can be deleted when mlx-lm's server has images for Gemma 4.

Upstream: not asked for yet.
"""

from __future__ import annotations

import binascii
from types import SimpleNamespace
from typing import Any

from ...hosts.mlx_lm import media
from ...hosts.mlx_lm.models import is_gemma4
from ...hosts.mlx_lm.tiny import text_model
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TOKENIZE = "mlx_lm.server:ResponseGenerator._tokenize"
_KINDS = ("image_url", "input_image", "image")


def probe() -> Finding:
    try:
        from mlx_lm import processors  # noqa: F401
        from mlx_lm.server import ResponseGenerator
    except ImportError:
        raise NotApplicable("the server of this mlx-lm takes no images") from None
    server, seen = ResponseGenerator.__new__(ResponseGenerator), []
    server.model_provider = SimpleNamespace(
        model=text_model("dense"),
        model_key="a model",
        processor=lambda text, images: (text, []),
        cli_args=SimpleNamespace(chat_template_args={}),
    )
    server.prompt_cache = SimpleNamespace()
    content = [{"type": "image_url", "image_url": {"url": _DOT}}]
    request = SimpleNamespace(
        request_type="chat",
        messages=[{"role": "user", "content": content}],
        tools=None,
        role_mapping=None,
    )
    server.model_provider.processor = _Processor()
    server._tokenize(_Tokenizer(seen), request, SimpleNamespace(chat_template_kwargs=None))
    kinds = [part["type"] for part in seen[0][0]["content"]]
    return Finding(kinds != ["image"], f"an image is to the template: {', '.join(kinds)}")


# a black pixel
_DOT = (
    "data:image/bmp;base64,"
    "Qk06AAAAAAAAADYAAAAoAAAAAQAAAAEAAAABABgAAAAAAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="
)


class _Processor:
    image_token = media.IMAGE

    def __call__(self, text: str, *, images: list[Any]) -> tuple[str, list[Any]]:
        return text, []


class _Tokenizer:
    has_chat_template = has_tool_calling = True
    has_thinking = False
    response_initial_state = None

    def __init__(self, seen: list[Any]):
        self._seen = seen

    def apply_chat_template(self, messages: list[dict[str, Any]], **options: Any) -> str:
        self._seen.append(messages)
        return ""

    def encode(self, text: str, **options: Any) -> list[int]:
        return [2]

    def convert_tokens_to_ids(self, token: str) -> int:
        return 0


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TOKENIZE, _tokenize)


def _tokenize(original):
    def _tokenize(self, tokenizer, request, args):
        model = getattr(self.model_provider, "model", None)
        parts = _image_parts(request) if is_gemma4(model) else []
        if not parts:
            return original(self, tokenizer, request, args)
        if self.model_provider.processor is None:
            why = media.obstacle(model) or "its config names no vision"
            raise media.MediaError(f"this model takes no pictures: {why}")
        for part in parts:
            url = part.get("image_url", part.get("image"))
            url = url.get("url") if isinstance(url, dict) else url
            if not isinstance(url, str):
                raise media.MediaError("a picture of the request has no URL")
            part.clear()
            part.update(type="image", image=url)
        try:
            return original(self, tokenizer, request, args)
        except (OSError, binascii.Error) as error:
            raise media.MediaError(f"a picture of the request cannot be read: {error}") from error

    return _tokenize


def _image_parts(request: Any) -> list[dict[str, Any]]:
    contents = [message.get("content") for message in getattr(request, "messages", None) or ()]
    return [
        part
        for content in contents
        if isinstance(content, list)
        for part in content
        if isinstance(part, dict) and part.get("type") in _KINDS
    ]


PATCH = Patch(id="mlx_lm.image_parts", targets=(_TOKENIZE,), apply=apply, probe=probe)
