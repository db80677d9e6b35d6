"""mlx_vlm.eos_leak: what one call asks to stop at is of that call alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts import script, tokenizer
from tests.hosts.contract import PatchContract, patched

pytest.importorskip("mlx_vlm.models.gemma4")
from mlx_vlm import batch_generate, generate, load

ID = "mlx_vlm.eos_leak"
SAID = [*tokenizer.ids("soxuny"), 106]
LIMIT = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tiny.save("dense", tmp_path_factory.mktemp("gemma-4-tiny"))
    tokenizer.save(made)
    return made


def say(loaded: Any, **options: Any) -> str:
    with script.says("mlx_vlm", SAID):
        return generate(*loaded, "hi", max_tokens=LIMIT, verbose=False, **options).text


def say_in_batch(loaded: Any) -> list[str]:
    with script.says("mlx_vlm", SAID):
        return batch_generate(
            *loaded, prompts=["hi", "hi there"], max_tokens=LIMIT, verbose=False
        ).texts


class TestEosLeak(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _a_model(self, folder: Path) -> None:
        self.folder = folder

    def untouched(self) -> Any:
        loaded = load(str(self.folder))
        return [
            say(loaded),
            say_in_batch(loaded),
            say(loaded, eos_tokens=["u"]),
            say(loaded),
        ]


@pytest.fixture
def loaded(folder: Path):
    with patched(ID):
        yield load(str(folder))


def test_a_call_stops_at_its_own(loaded) -> None:
    assert say(loaded) == "soxuny"
    assert say(loaded, eos_tokens=["x"]) == "so"
    assert say(loaded, eos_tokens=["y"]) == "soxun"
    assert say(loaded, eos_tokens=["x"]) == "so"
    assert say(loaded) == "soxuny"


def test_a_batch_does_not_stop_at_another_call_s(loaded) -> None:
    say(loaded, eos_tokens=["x"])
    assert say_in_batch(loaded) == ["soxuny"] * 2


def test_criteria_of_a_call_are_gone_with_it(loaded) -> None:
    at_x = tokenizer.ids("x")[0]
    assert say(loaded, stopping_criteria=lambda token: token == at_x) == "so"
    assert say(loaded, eos_tokens=["y"]) == "soxun"
    assert say(loaded) == "soxuny"


def test_a_call_that_fails_leaves_nothing(loaded) -> None:
    def fail(tokens: Any, logits: Any) -> Any:
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        say(loaded, eos_tokens=["x"], logits_processors=[fail])
    assert say(loaded, eos_tokens=["y"]) == "soxun"
