"""The prefix cache knows sounds and videos apart."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny_audio
from mlx_gemma4_patches.patch import State
from tests.hosts.contract import PatchContract, patched, record, stock
from tests.hosts.hearing import Hearing, skip_unless_sounds_are_heard
from tests.reference.conversations import write_sound

pytest.importorskip("mlx_vlm.apc")

ID = "mlx_vlm.apc_audio"
WORDS = "<bos><|turn>user\n<|audio|>write down what is said in this recording, in plain letters"
TEXT = f"{WORDS}<turn|>\n<|turn>model\n"


class TestApcAudio(PatchContract):
    id = ID

    def untouched(self):
        apc, generate = (importlib.import_module(f"mlx_vlm.{m}") for m in ("apc", "generate"))
        batch = SimpleNamespace(apc_manager=object())
        pixels, sound = mx.ones((1, 3, 48, 48)), mx.ones((1, 4, 128))
        made = [apc.hash_image_payload(pixel_values=pixels)]
        for model_type, inputs in (
            ("gemma4", {"pixel_values": pixels}),
            ("gemma4", {}),
            ("gemma3n", {"input_features": sound}),
        ):
            batch.model = SimpleNamespace(config=SimpleNamespace(model_type=model_type))
            made.append(generate.BatchGenerator._apc_extra_hash(batch, inputs))
        return made


@pytest.fixture(scope="module")
def hearing(tmp_path_factory) -> Hearing:
    skip_unless_sounds_are_heard()
    made = Hearing(tmp_path_factory.mktemp("hearing"))
    for seed in (1, 2):
        samples = (tiny_audio.sound(20_000, seed) * 32768).astype("int16")
        write_sound(made.folder / f"{seed}.wav", samples)
    return made


def said(hearing: Hearing, seed: int, **how) -> list[int]:
    generate = importlib.import_module("mlx_vlm.generate")
    files = [str(hearing.folder / f"{seed}.wav")]
    how = {"audio": files, "max_tokens": 6, "temperature": 0.0, **how}
    parts = generate.stream_generate(hearing.model, hearing.processor, TEXT, **how)
    return [int(part.token) for part in parts][:6]


def test_another_sound_of_the_same_length_has_its_own_answer(hearing: Hearing) -> None:
    manager = importlib.import_module("mlx_vlm.apc").APCManager
    expected = [said(hearing, seed) for seed in (1, 2, 1)]
    assert expected[0] != expected[1]

    def cached() -> list[list[int]]:
        kept = manager(num_blocks=256, block_size=16)
        return [said(hearing, seed, apc_manager=kept) for seed in (1, 2, 1)]

    with patched(ID):
        assert cached() == expected
    if record(ID).state is State.APPLIED:
        with stock(ID):
            assert cached() != expected


@pytest.mark.parametrize("name", ["input_features", "pixel_values_videos", "video_position_ids"])
def test_in_a_batch_other_media_have_another_key(name: str) -> None:
    generate = importlib.import_module("mlx_vlm.generate")
    gemma4 = SimpleNamespace(config=SimpleNamespace(model_type="gemma4"))
    batch = SimpleNamespace(apc_manager=object(), model=gemma4)
    key = generate.BatchGenerator._apc_extra_hash
    if record(ID).state is not State.APPLIED and name == "video_position_ids":
        pytest.skip("this mlx-vlm hashes the pixels alone")
    with patched(ID):
        one, other = (key(batch, {name: mx.full((1, 4, 8), n)}) for n in (1, 2))
    assert one != other
