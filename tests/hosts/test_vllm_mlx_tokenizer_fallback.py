"""vllm-mlx hands out the model that it has loaded."""

from __future__ import annotations

import mlx_lm
import pytest

from tests.hosts import batching, checkpoints
from tests.hosts.contract import PatchContract

pytest.importorskip("vllm_mlx")

ID = "vllm_mlx.tokenizer_fallback"


def _load(name: str):
    from vllm_mlx.utils import load_model_with_fallback

    return load_model_with_fallback(name)


class TestTokenizerFallback(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _a_model(self, tmp_path):
        self.folder = batching.save("dense", tmp_path / "model")

    def untouched(self):
        """Errors that no fallback helps against, and models that need one from the start."""
        from vllm_mlx.utils import tokenizer as host

        seen = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(host, "_load_with_tokenizer_fallback", lambda *args: ("fallback", None))
            errors = (OSError("no such model"), ValueError("broken"), ValueError("Tokenizer class"))
            for error in errors:

                def fail(*args, error=error, **named):
                    raise error

                patch.setattr(mlx_lm, "load", fail)
                try:
                    seen += [type(part).__name__ for part in _load(str(self.folder))]
                except Exception as raised:
                    seen.append(repr(raised))
            patch.setattr(host, "_needs_tokenizer_fallback", lambda name: True)
            seen += [type(part).__name__ for part in _load(str(self.folder))]
        return seen


def test_a_text_model_and_its_tokenizer_are_loaded(tmp_path) -> None:
    folder = batching.save("dense", tmp_path / "model")
    checkpoints.change(folder, checkpoints.text_only, checkpoints.text_tensors)
    model, tokenizer = _load(str(folder))
    assert model.model_type == "gemma4_text"
    assert tokenizer.decode(tokenizer.encode("hi", add_special_tokens=False)) == "hi"
