"""The frames that are read of a video file are those of transformers."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from mlx_gemma4_patches.gemma4 import video
from mlx_gemma4_patches.patch import State
from tests.hosts.contract import PatchContract, patched, record, stock
from tests.hosts.hearing import Hearing

pytest.importorskip("mlx_vlm")
cv2 = pytest.importorskip("cv2")

ID = "mlx_vlm.video_frames"


def write(file, frames: int, rate: float = 10.0) -> str:
    """A film whose frame i is grey of the level 2 i."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), rate, (96, 96))
    for i in range(frames):
        writer.write(np.full((96, 96, 3), 2 * i, np.uint8))
    writer.release()
    return str(file)


@pytest.fixture(scope="module")
def hearing(tmp_path_factory) -> Hearing:
    if record(ID).state is not State.APPLIED:
        pytest.skip("this mlx-vlm asks no processor which frames to read")
    return Hearing(tmp_path_factory.mktemp("hearing"))


class TestVideoFrames(PatchContract):
    id = ID

    def untouched(self):
        gemma4 = importlib.import_module("mlx_vlm.models.gemma4.processing_gemma4")
        if not hasattr(gemma4, "Gemma4VideoProcessor"):
            return None
        frames = [np.full((40, 3, 48, 48), 7, np.uint8)]  # of which there is no file
        made = gemma4.Gemma4VideoProcessor()(frames, fps=2.0)
        return [made["frame_timestamps"], made["pixel_values_videos"].tolist()]


def seen(hearing: Hearing, file: str) -> list[int]:
    utils = importlib.import_module("mlx_vlm.utils")
    made = utils.prepare_inputs(hearing.processor, videos=[file], prompts="<|video|>see")
    pixels = np.array(made["pixel_values_videos"]).reshape(-1, 630, 768)
    return np.round(pixels[:, 0, 0] * 255 / 2).astype(int).tolist()


@pytest.mark.parametrize("total", [100, 64, 33, 32])
def test_32_are_spread_over_the_whole(hearing, tmp_path, total: int) -> None:
    file = write(tmp_path / "film.avi", total)
    expected = np.arange(0, total, total / 32).astype(int)  # as in transformers
    with patched(ID):
        found = seen(hearing, file)
    assert np.abs(np.array(found) - expected).max() <= 1  # JPEG moves a level
    with stock(ID):
        assert len(seen(hearing, file)) < 32


def test_of_a_short_one_all_are_seen(hearing, tmp_path) -> None:
    with patched(ID):
        assert len(seen(hearing, write(tmp_path / "film.avi", 20))) == 20


@pytest.mark.parametrize("total", [1, 5, 31, 32, 33, 100, 1800])
def test_the_rule_is_that_of_transformers(total: int) -> None:
    expected = np.arange(0, total, total / 32).astype(int) if total > 32 else np.arange(total)
    assert video.frames(total) == expected.tolist()
