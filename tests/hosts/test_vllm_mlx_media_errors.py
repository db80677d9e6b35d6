"""What cannot be read is refused with one sentence before it is queued."""

from __future__ import annotations

import asyncio
import base64
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlx_gemma4_patches.gemma4 import channels
from mlx_gemma4_patches.hosts.vllm_mlx import unbatched, video
from tests.hosts import batching, unreadable
from tests.hosts.contract import PatchContract, patched, skip_unless_needed

server = pytest.importorskip("vllm_mlx.server")
mllm = pytest.importorskip("vllm_mlx.models.mllm")
HTTPException = pytest.importorskip("fastapi").HTTPException

ID = "vllm_mlx.media_errors"
NAMES = {"image": "picture", "audio": "sound", "video": "video"}
FILES = {"image": "good.png", "audio": "good.wav", "video": "good.avi"}
GOOD_FILES = {
    "good.png": unreadable.png(),
    "good.wav": unreadable.wav(4000),
    "good.avi": base64.b64decode(video.film().partition(",")[2]),
}
BAD_FILES = {
    **{f"noise{Path(name).suffix}": bytes(range(1, 256)) for name in GOOD_FILES},
    **{f"empty{Path(name).suffix}": b"" for name in GOOD_FILES},
    "cut.png": GOOD_FILES["good.png"][:4000],
    "cut.wav": GOOD_FILES["good.wav"][:30],
    "cut.avi": GOOD_FILES["good.avi"][:100],
    "long.wav": unreadable.SOUNDS["10 hours"],
}
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


def test_base64_without_a_header_is_a_picture_as_before() -> None:
    skip_unless_needed(ID)
    with patched(ID):
        prepared(part("image", base64.b64encode(unreadable.png()).decode()))
        with pytest.raises(HTTPException, match="the picture cannot be read"):
            prepared(part("image", base64.b64encode(unreadable.png()[:4000]).decode()))


@pytest.fixture
def site(tmp_path, monkeypatch) -> Iterator[str]:
    """The address of a server of files, on this machine, which the host would refuse to ask."""
    skip_unless_needed(ID)
    for name, data in {**GOOD_FILES, **BAD_FILES}.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.setattr("vllm_mlx.models.mllm._validate_url_safety", lambda url: None)
    with unreadable.at_an_address(tmp_path) as address:
        yield address


def seen(kind: str, url: str, stream: bool) -> list[bytes]:
    """The files that mlx-vlm is given for a request with a medium, without batches."""
    from vllm_mlx.engine.simple import SimpleEngine

    files: list[bytes] = []

    def generate(model: Any, processor: Any, prompt: str, image: Any = None, **how: Any) -> Any:
        given = [*(image or []), *(how.get("audio") or []), *(how.get("video") or [])]
        files.extend(Path(file).read_bytes() for file in given)
        is_streamed = stream and kind != "video"  # videos have no stream there
        return iter([]) if is_streamed else SimpleNamespace(text="so", prompt_tokens=1)

    async def ask(engine: Any) -> None:
        messages = [{"role": "user", "content": [part(kind, url)]}]
        if stream:
            async for _ in engine.stream_chat(messages=messages):
                pass
        else:
            await engine.chat(messages=messages)

    with unbatched.model(generate) as model, pytest.MonkeyPatch.context() as changed:
        changed.setattr("mlx_vlm.stream_generate", generate)
        model.processor.tokenizer.convert_tokens_to_ids = lambda _: channels.OPENING_ID
        engine = SimpleEngine("gemma-4", force_mllm=True)
        engine._model, engine._loaded = model, True
        model._video_native = True  # as a model of mlx-vlm that knows videos
        asyncio.run(ask(engine))
    return files


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", ["image", "audio", "video"])
def test_what_is_fetched_is_what_the_model_gets(site: str, kind: str, stream: bool) -> None:
    name = FILES[kind]
    with patched(ID):
        assert seen(kind, f"{site}/{name}", stream) == [GOOD_FILES[name]]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", ["noise", "empty", "cut", "missing"])
@pytest.mark.parametrize("kind", ["image", "audio", "video"])
def test_what_is_fetched_and_cannot_be_read(site: str, kind: str, name: str, stream: bool) -> None:
    url = f"{site}/{name}{Path(FILES[kind]).suffix}"
    with (
        patched(ID),
        pytest.raises(HTTPException, match=f"the {NAMES[kind]} cannot be read") as error,
    ):
        seen(kind, url, stream)
    assert error.value.status_code == 400
    assert site not in error.value.detail
    assert len(error.value.detail) < 120


def test_a_fetched_sound_of_ten_hours(site: str) -> None:
    with patched(ID), pytest.raises(HTTPException, match="the sound cannot be read"):
        seen("audio", f"{site}/long.wav", stream=False)


@pytest.mark.parametrize("kind", ["image", "audio", "video"])
def test_what_is_fetched_and_too_large(site: str, kind: str, monkeypatch) -> None:
    download = getattr(mllm, f"download_{kind}")
    monkeypatch.setattr(mllm, f"download_{kind}", partial(download, max_size=100))
    with patched(ID), pytest.raises(HTTPException, match="larger than the server takes"):
        seen(kind, f"{site}/{FILES[kind]}", stream=False)


@pytest.mark.parametrize("kind", ["image", "audio", "video"])
def test_an_address_that_does_not_answer(site: str, kind: str) -> None:
    with patched(ID), pytest.raises(HTTPException, match="cannot be fetched from its address"):
        seen(kind, f"http://127.0.0.1:1/{FILES[kind]}", stream=False)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_nothing_that_was_fetched_is_left_behind(
    site: str, tmp_path, monkeypatch, stream: bool
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    for kind, name in FILES.items():
        bad = f"{site}/noise{Path(name).suffix}"
        with patched(ID), pytest.raises(HTTPException, match="cannot be read"):
            seen(kind, bad, stream)
    assert list(folder.iterdir()) == []
