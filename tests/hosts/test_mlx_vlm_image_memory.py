"""Large pictures are made smaller before they become arrays."""

from __future__ import annotations

import importlib
import io

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from tests.hosts import unreadable
from tests.hosts.contract import PatchContract, patched
from tests.hosts.hearing import Hearing

pytest.importorskip("mlx_vlm")

ID = "mlx_vlm.image_memory"


@pytest.fixture(scope="module")
def hearing(tmp_path_factory) -> Hearing:
    return Hearing(tmp_path_factory.mktemp("hearing"))


def prepared(hearing: Hearing, image) -> dict:
    utils = importlib.import_module("mlx_vlm.utils")
    return dict(utils.prepare_inputs(hearing.processor, images=[image], prompts="<|image|>"))


class TestImageMemory(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _hearing(self, hearing) -> None:
        self.hearing = hearing

    def untouched(self):
        wide = self.hearing.folder / "wide.png"
        data = unreadable.uri("image/png", unreadable.png(333, 517))
        return [prepared(self.hearing, source) for source in (str(wide), Image.open(wide), data)]


def test_a_large_picture_is_seen_as_a_smaller_one(hearing) -> None:
    rows = np.linspace(0, 255, 8000).astype(np.uint8)
    large = Image.fromarray(np.broadcast_to(rows[:, None], (8000, 8016)))
    file = io.BytesIO()
    large.save(file, "JPEG", quality=95, exif=_turned())
    small = large.resize((1002, 1000)).rotate(-90, expand=True)
    utils = importlib.import_module("mlx_vlm.utils")
    image = "data:image/jpeg;base64," + unreadable.base64.b64encode(file.getvalue()).decode()
    with patched(ID):
        made = utils.prepare_inputs(hearing.processor, images=[image], prompts="<|image|>")
    expected = prepared(hearing, small)
    assert mx.array(made["input_ids"]).tolist() == mx.array(expected["input_ids"]).tolist()
    pixels, others = (np.asarray(one["pixel_values"][0]) for one in (made, expected))
    assert np.abs(pixels - others).max() < 4 / 255


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()
