"""Frames that the 12B sees are stamped with the times they have in the video."""

from __future__ import annotations

import numpy as np
import pytest

from tests.hosts.contract import PatchContract, patched, stock

unified = pytest.importorskip("mlx_vlm.models.gemma4_unified.processing_gemma4_unified")

ID = "mlx_vlm.video_timestamps_unified"
MINUTE = np.zeros((120, 3, 48, 48), np.uint8)  # at 2 a second


def times(frames, fps, processor=None) -> list[list[float]]:
    processor = processor or unified.Gemma4UnifiedVideoProcessor()
    return processor(frames, fps=fps)["frame_timestamps"]


class TestVideoTimestampsUnified(PatchContract):
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
