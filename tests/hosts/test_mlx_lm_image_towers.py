"""Which models of mlx-lm know where their towers for pictures and sounds are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_lm import media
from tests.hosts.contract import PatchContract
from tests.hosts.parity import reference

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")


class TestImageTowers(PatchContract):
    id = "mlx_lm.image_towers"

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tiny.save("e2b", tmp_path)

    def untouched(self) -> Any:
        from mlx_lm.utils import load_model

        model, config = load_model(self.folder)
        return [config, model.parameters(), model(mx.array([tiny.prompt(8)]))]


def test_without_mlx_vlm_one_line_says_what_helps_and_text_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlx_lm.utils import load_model

    model = load_model(tiny.save("dense", tmp_path))[0]
    monkeypatch.setattr(media, "find_spec", lambda name: None)
    assert media.Processor.of(model) is None
    assert [r.getMessage().count("pip install mlx-vlm") for r in caplog.records] == [1]
    logits = model(reference("dense")["ids_8"][None])[0]
    assert mx.argmax(logits[-1]).item() == reference("dense")["greedy_8"][0].item()


def test_a_checkpoint_without_towers_says_so(tmp_path: Path) -> None:
    pytest.importorskip("mlx_vlm")
    from mlx_lm.utils import load_model

    file = tiny.save("dense", tmp_path) / "model.safetensors"
    words = {k: v for k, v in mx.load(str(file)).items() if "language_model" in k}
    mx.eval(words)
    mx.save_safetensors(str(file), words, metadata={"format": "pt"})
    model = load_model(tmp_path)[0]
    with pytest.raises(media.MediaError, match=r"mlx_lm\.convert leaves them out"):
        media.prepare(model, "<bos><|image|>?", ["a.png"])


def test_other_models_have_no_processor_of_ours(tmp_path: Path) -> None:
    processors = pytest.importorskip("mlx_lm.processors")
    from mlx_lm.models import llama

    settings = {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8}
    heads = {"num_attention_heads": 1, "rms_norm_eps": 1e-6, "vocab_size": 8}
    model = llama.Model(llama.ModelArgs(model_type="llama", **settings, **heads))
    assert processors.load_processor(model, {"vision_config": {"patch_size": 16}}) is None
