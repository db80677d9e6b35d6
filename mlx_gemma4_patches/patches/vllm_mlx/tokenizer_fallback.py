"""vllm-mlx 0.2.7 loads no text model.

What the user sees: ``TypeError: cannot unpack non-iterable NoneType object`` right after loading,
for every model that mlx-lm loads without help.

Why: ``load_model_with_fallback`` returns what its fallbacks return, but not what mlx-lm's own
``load`` has returned (waybarrios/vllm-mlx#268).

The fix: the result is handed out; the fallbacks are left to vllm-mlx. It can be deleted when no
supported release is older than vllm-mlx 0.2.8.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path

from ...patch import Finding, Patch
from ...surgery import Surgery

_MODULE = "vllm_mlx.utils.tokenizer"
_LOAD = f"{_MODULE}:load_model_with_fallback"


def probe() -> Finding:
    import mlx_lm

    host = importlib.import_module(_MODULE)
    load = mlx_lm.load
    mlx_lm.load = lambda *args, **named: ("a model", "a tokenizer")
    try:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text("{}")  # later releases look into it
            loaded = host.load_model_with_fallback(folder)
    finally:
        mlx_lm.load = load
    what = "a model and a tokenizer" if loaded == ("a model", "a tokenizer") else loaded
    return Finding(what is loaded, f"loading a text model returns {what}")


def apply(surgery: Surgery) -> None:
    host = importlib.import_module(_MODULE)

    def make(original):
        def load_model_with_fallback(model_name, tokenizer_config=None):
            from mlx_lm import load

            if not host._needs_tokenizer_fallback(model_name):
                try:
                    return load(model_name, tokenizer_config=tokenizer_config or {})
                except ValueError:
                    pass  # which fallback there is, the original finds out
            return original(model_name, tokenizer_config)

        return load_model_with_fallback

    surgery.wrap(_LOAD, make)


PATCH = Patch(id="vllm_mlx.tokenizer_fallback", targets=(_LOAD,), apply=apply, probe=probe)
