"""What cannot be read is refused with one sentence before it is queued."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mlx_gemma4_patches.gemma4 import channels
from tests.hosts import batching, unreadable
from tests.hosts.contract import PatchContract, patched, skip_unless_needed

server = pytest.importorskip("vllm_mlx.server")
HTTPException = pytest.importorskip("fastapi").HTTPException

ID = "vllm_mlx.media_errors"
GOOD = unreadable.uri("audio/wav", unreadable.wav(400))


def prepared(*parts: dict[str, Any], opening: int | None = channels.OPENING_ID) -> Any:
    tokenizer = SimpleNamespace(convert_tokens_to_ids=lambda _: opening)
    engine = SimpleNamespace(is_mllm=True, tokenizer=tokenizer)
    return server._prepare_chat_messages(engine, [{"role": "user", "content": list(parts)}])


def part(kind: str, url: Any) -> dict[str, Any]:
    return {"type": f"{kind}_url", f"{kind}_url": {"url": url}}


class TestMediaErrors(PatchContract):
    id = ID

    def untouched(self):
        text, image = {"type": "text", "text": "hi"}, part("image", batching.image(0))
        damaged = part("image", unreadable.uri("image/png", b""))
        return [
            list(prepared(text)),
            list(prepared(image, text, part("audio", GOOD))),
            list(prepared(damaged, opening=None)),  # another model
        ]


CASES = [
    *((f"image/{name}", "image", data) for name, data in unreadable.PICTURES.items()),
    *((f"audio/{name}", "audio", data) for name, data in unreadable.SOUNDS.items()),
    *((f"video/{name}", "video", data) for name, data in unreadable.VIDEOS.items()),
]


@pytest.mark.parametrize(("kind", "data"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_it_is_the_clients_fault(kind: str, data: bytes) -> None:
    skip_unless_needed(ID)
    type_of = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4"}[kind]
    with patched(ID), pytest.raises(HTTPException, match="cannot be read") as error:
        prepared(part("audio", GOOD), part(kind, unreadable.uri(type_of, data)))
    assert error.value.status_code == 400
    assert len(error.value.detail) < 120


@pytest.mark.parametrize(
    "url", ["", "/etc/passwd", "data:,", "data:text/plain;base64,AAAA", 5, None]
)
@pytest.mark.parametrize("kind", ["image", "audio", "video"])
def test_what_is_no_data(kind: str, url: Any) -> None:
    skip_unless_needed(ID)
    with patched(ID), pytest.raises(HTTPException, match=f"the {NAMES[kind]} cannot be read"):
        prepared(part(kind, url))


NAMES = {"image": "picture", "audio": "sound", "video": "video"}
