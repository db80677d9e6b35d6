"""Frames are stamped with the times they have in the video."""

from __future__ import annotations

import numpy as np
import pytest

from tests.hosts.contract import PatchContract, patched, stock

gemma4 = pytest.importorskip("mlx_vlm.models.gemma4.processing_gemma4")
if not hasattr(gemma4, "Gemma4VideoProcessor"):
    pytest.skip("this mlx-vlm takes no videos", allow_module_level=True)

ID = "mlx_vlm.video_timestamps"
MINUTE = np.zeros((120, 3, 48, 48), np.uint8)  # at 2 a second


def times(frames, fps, processor=None) -> list[list[float]]:
    processor = processor or gemma4.Gemma4VideoProcessor()
    return processor(frames, fps=fps)["frame_timestamps"]


class TestVideoTimestamps(PatchContract):
    id = ID

    def untouched(self):
        few = MINUTE[:32]
        return [times([few], 2.0), times(few, None), times([few, few[:3]], [2.0, 5.0])]


def test_a_minute_is_a_minute() -> None:
    with patched(ID):
        (found,) = times([MINUTE], 2.0)
    with stock(ID):
        (without,) = times([MINUTE], 2.0)
    assert len(found) == 32
    assert found[0] == 0
    assert found[-1] == pytest.approx(59.5)
    assert without[-1] == pytest.approx(15.5)
    # evenly between, as the frames are
    assert np.diff(found) == pytest.approx(59.5 / 31)


def test_each_video_has_its_own_rate() -> None:
    with patched(ID):
        one, other = times([MINUTE, MINUTE[:10]], [2.0, 5.0])
    assert one[-1] == pytest.approx(59.5)
    assert other[-1] == pytest.approx(9 / 5)


def test_frames_that_are_kept_have_the_times_they_had() -> None:
    video = np.arange(100, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 48, 48), np.uint8)
    processor = gemma4.Gemma4VideoProcessor(num_frames=4)
    with patched(ID):
        made = processor([video], fps=[10.0])
    shown = np.asarray(made["pixel_values_videos"]).reshape(4, -1).max(axis=1) * 255
    assert made["frame_timestamps"][0] == pytest.approx(shown / 10, abs=0.05)
