"""mlx_lm.rope_freqs_thread: a model loaded in one thread generates in any other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from tests.hosts.contract import PatchContract, patched
from tests.hosts.parity import reference

pytest.importorskip("mlx_lm.models.gemma4")  # mlx-lm 0.31.1 has none
from mlx_lm.generate import generate_step
from mlx_lm.models.rope_utils import initialize_rope
from mlx_lm.utils import load_model

ID = "mlx_lm.rope_freqs_thread"

OTHER_ROPES = (
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 2.0},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
)


class TestRopeFreqsThread(PatchContract):
    id = ID

    def untouched(self) -> Any:
        x = mx.random.normal((1, 2, 5, 64), key=mx.random.key(0))
        ropes = [initialize_rope(64, 1e4, False, settings, 256) for settings in OTHER_ROPES]
        ids = reference("dense")["ids_40"][None]
        return [*(rope(x, offset=3) for rope in ropes), *(text_model(s)(ids) for s in tiny.SHAPES)]


def say(model: Any, shape: str) -> list[int]:
    expected = reference(shape)
    steps = generate_step(expected["ids_40"], model, max_tokens=expected["greedy_40"].size)
    return [token for token, _ in steps]


@pytest.mark.parametrize("shape", tiny.SHAPES)
class TestThreads:
    @pytest.fixture
    def folder(self, tmp_path: Path, shape: str) -> Path:
        return tiny.save(shape, tmp_path)

    def test_loaded_in_one_thread_it_says_in_two_others_what_transformers_says(
        self, folder: Path, shape: str
    ) -> None:
        expected = reference(shape)["greedy_40"].tolist()
        with patched(ID), ThreadPoolExecutor(1) as loader:
            model, _ = loader.submit(load_model, folder).result()
        for _ in range(2):
            with ThreadPoolExecutor(1) as generator:
                assert generator.submit(say, model, shape).result() == expected
        assert say(model, shape) == expected

    def test_loaded_in_the_main_thread_it_does_so_in_another(
        self, folder: Path, shape: str
    ) -> None:
        with patched(ID):
            model, _ = load_model(folder)
        with ThreadPoolExecutor(1) as generator:
            said = generator.submit(say, model, shape).result()
        assert said == reference(shape)["greedy_40"].tolist()
