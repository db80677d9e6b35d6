"""What cannot be read is refused with one sentence, and nothing of it is repeated."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Iterator

import numpy as np
import pytest

from tests.hosts import unreadable
from tests.hosts.contract import PatchContract, equal, patched
from tests.hosts.hearing import Hearing, skip_unless_sounds_are_heard

pytest.importorskip("mlx_vlm")

ID = "mlx_vlm.media_errors"


@pytest.fixture(scope="module")
def hearing(tmp_path_factory) -> Hearing:
    return Hearing(tmp_path_factory.mktemp("hearing"))


def prepared(hearing: Hearing, text: str, **media):
    utils = importlib.import_module("mlx_vlm.utils")
    return utils.prepare_inputs(hearing.processor, prompts=text, **media)


def told(hearing: Hearing, text: str, **media) -> str:
    with patched(ID), pytest.raises(ValueError, match="cannot be read") as error:
        prepared(hearing, text, **media)
    sentence = str(error.value)
    assert len(sentence) < 120
    assert "\n" not in sentence
    return sentence


def skip_unless_videos_are_seen() -> None:
    processing = importlib.import_module("mlx_vlm.models.gemma4.processing_gemma4")
    if not hasattr(processing, "Gemma4VideoProcessor"):
        pytest.skip("this mlx-vlm takes no videos")


class TestMediaErrors(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _hearing(self, hearing) -> None:
        self.hearing = hearing

    def untouched(self):
        made = [
            prepared(self.hearing, "hello"),
            prepared(self.hearing, "<|image|>", images=[str(self.hearing.folder / "wide.png")]),
        ]
        files = [str(self.hearing.folder / f"{name}.wav") for name in ("short", "long")]
        return [dict(one) for one in made] + [self.hearing.files("sounds"), files]


@pytest.mark.parametrize("name", unreadable.PICTURES)
def test_pictures(hearing, tmp_path, name: str) -> None:
    data = unreadable.PICTURES[name]
    (tmp_path / "secret.png").write_bytes(data)
    for source in (str(tmp_path / "secret.png"), unreadable.uri("image/png", data)):
        sentence = told(hearing, "<|image|>", images=[source])
        assert sentence.startswith("the picture cannot be read: ")
        assert "secret" not in sentence


@pytest.mark.parametrize("name", unreadable.SOUNDS)
def test_sounds(hearing, tmp_path, name: str) -> None:
    skip_unless_sounds_are_heard()
    data = unreadable.SOUNDS[name]
    (tmp_path / "secret.wav").write_bytes(data)
    good = str(hearing.folder / "short.wav")
    for source in (str(tmp_path / "secret.wav"), io.BytesIO(data)):
        sentence = told(hearing, "<|audio|><|audio|>", audio=[good, source])
        assert sentence.startswith("sound 2 of 2 cannot be read: ")
        assert "secret" not in sentence


@pytest.mark.parametrize("name", unreadable.VIDEOS)
def test_videos(hearing, tmp_path, name: str) -> None:
    pytest.importorskip("cv2")
    skip_unless_videos_are_seen()
    (tmp_path / "secret.mp4").write_bytes(unreadable.VIDEOS[name])
    sentence = told(hearing, "<|video|>", videos=[str(tmp_path / "secret.mp4")])
    assert sentence.startswith("the video cannot be read: ")


@pytest.mark.parametrize(
    "start", [b"OggS", b"\0\0\0\x20ftypM4A ", b"\x1a\x45\xdf\xa3", b"\xff\xf1"]
)
def test_a_long_sound_that_ffmpeg_decodes(hearing, tmp_path, monkeypatch, start: bytes) -> None:
    skip_unless_sounds_are_heard()
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nexec cat /dev/zero\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    data = start + bytes(2000)
    (tmp_path / "secret.ogg").write_bytes(data)
    for source in (str(tmp_path / "secret.ogg"), io.BytesIO(data)):
        sentence = told(hearing, "<|audio|>", audio=[source])
        assert "more than 100 million samples" in sentence


@pytest.fixture
def site(tmp_path) -> Iterator[str]:
    for name, data in unreadable.SOUNDS.items():
        (tmp_path / name.replace(" ", "_")).write_bytes(data)
    (tmp_path / "good").write_bytes(unreadable.wav(9000))
    with unreadable.at_an_address(tmp_path) as address:
        yield address


def test_sounds_at_an_address(hearing, site: str, monkeypatch) -> None:
    skip_unless_sounds_are_heard()
    with patched(ID):
        fetched = prepared(hearing, "<|audio|>", audio=[f"{site}/good"])
        at_hand = prepared(hearing, "<|audio|>", audio=[io.BytesIO(unreadable.wav(9000))])
    assert equal(dict(fetched), dict(at_hand))
    for name in unreadable.SOUNDS:
        sentence = told(hearing, "<|audio|>", audio=[f"{site}/{name.replace(' ', '_')}"])
        assert site not in sentence
    assert "million samples" in told(hearing, "<|audio|>", audio=[f"{site}/2_hours_of_silence"])
    for nowhere in (f"{site}/missing", "http://127.0.0.1:1/sound"):
        assert told(hearing, "<|audio|>", audio=[nowhere]).endswith("fetched from its address")
    monkeypatch.setattr(f"mlx_gemma4_patches.patches.{ID}._MOST_BYTES", 10_000)
    assert "more than 0 MB" in told(hearing, "<|audio|>", audio=[f"{site}/good"])


def test_a_long_sound_is_not_decoded(hearing, monkeypatch) -> None:
    skip_unless_sounds_are_heard()

    def decode(*_, **__):
        raise AssertionError("it is decoded as a whole")

    for name in ("decode", "decode_file"):
        monkeypatch.setattr(f"miniaudio.{name}", decode)
    silence = io.BytesIO(unreadable.SOUNDS["2 hours of silence"])
    assert "more than 100 million samples" in told(hearing, "<|audio|>", audio=[silence])


def test_compressed_sounds_are_heard_as_before(hearing) -> None:
    skip_unless_sounds_are_heard()
    silence = io.BytesIO(unreadable.flac(65_535))
    with patched(ID):
        heard = prepared(hearing, "<|audio|>", audio=[silence])
    assert heard["input_ids"].tolist()[0].count(hearing.model.config.audio_token_id) == 103


@pytest.fixture
def film(tmp_path) -> str:
    """100 frames, 2 a second."""
    cv2 = pytest.importorskip("cv2")
    skip_unless_videos_are_seen()
    file = str(tmp_path / "film.avi")
    writer = cv2.VideoWriter(file, cv2.VideoWriter_fourcc(*"MJPG"), 2.0, (64, 48))
    for i in range(100):
        writer.write(np.full((48, 64, 3), 2 * i, np.uint8))
    writer.release()
    return file


@pytest.mark.parametrize(("room", "expected"), [(1000, 100), (40, 40), (3, 32)])
def test_the_frames_of_a_long_video_fit_into_memory(
    hearing, film: str, monkeypatch, room: int, expected: int
) -> None:
    import cv2

    monkeypatch.setattr("mlx_gemma4_patches.gemma4.unreadable.FRAME_BYTES", room * 3 * 64 * 48)
    convert, read = cv2.cvtColor, []
    monkeypatch.setattr(cv2, "cvtColor", lambda *how: read.append(how) or convert(*how))
    with patched(ID):
        prepared(hearing, "<|video|>", videos=[film])
    assert len(read) in (expected, 32)  # today's releases never read more than 32


def test_a_video_of_large_frames(hearing, film: str, monkeypatch) -> None:
    monkeypatch.setattr("mlx_gemma4_patches.gemma4.unreadable.MOST_PIXELS", 64 * 48 - 1)
    assert "million pixels" in told(hearing, "<|video|>", videos=[film])


def test_what_is_not_there(hearing) -> None:
    text = "there is no such file"
    assert told(hearing, "<|image|>", images=["/no/such.png"]).endswith(text)
    assert told(hearing, "<|image|>", images=["x" * 100_000]).endswith(text)
    assert told(hearing, "<|audio|>", audio=["/no/such.wav"])
