"""mlx_vlm.rope_freqs_thread: a model loaded in one thread generates in any other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model
from tests.hosts import answers
from tests.hosts.contract import PatchContract, patched
from tests.hosts.parity import reference

ID = "mlx_vlm.rope_freqs_thread"

pytest.importorskip("mlx_vlm.models.gemma4", reason="no Gemma 4 in this mlx-vlm")


class TestRopeFreqsThread(PatchContract):
    id = ID

    def untouched(self):
        ids = reference("dense")["ids_40"][None]
        return [model(shape).language_model(ids).logits for shape in tiny.SHAPES]


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_loaded_in_one_thread_it_says_in_two_others_what_transformers_says(shape, tmp_path):
    expected = reference(shape)
    prompt, greedy = expected["ids_40"].tolist(), expected["greedy_40"][:6].tolist()
    with patched(ID), ThreadPoolExecutor(1) as loader:
        loaded = loader.submit(answers.load, shape, tmp_path).result()
    for _ in range(2):
        with ThreadPoolExecutor(1) as generator:
            assert generator.submit(loaded.answer, prompt, 6).result() == greedy
