"""``python -m tests.peers.models HUB NAME...``: tiny models under the names that tests ask for.

A name with gemma-4 in it is a Gemma 4, every other one a Qwen2. ``HUB`` is laid out as the cache of
huggingface_hub, so that what loads from there needs no network.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts import tokenizer

_REVISION = "0" * 40
_QWEN2 = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "vocab_size": tiny.VOCABULARY,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
    "eos_token_id": 1,
}


def main() -> None:
    hub, *names = sys.argv[1:]
    for name in names:
        model = Path(hub) / f"models--{name.replace('/', '--')}"
        folder = model / "snapshots" / _REVISION
        folder.mkdir(parents=True)
        (model / "refs").mkdir()
        (model / "refs" / "main").write_text(_REVISION)
        if "gemma-4" in name.lower():
            tiny.save("e2b", folder, shared_kv=True)
        else:
            _save_qwen2(folder)
        tokenizer.save(folder)


def _save_qwen2(folder: Path) -> None:
    from mlx_lm.models import qwen2

    mx.random.seed(0)
    model = qwen2.Model(qwen2.ModelArgs.from_dict(_QWEN2))
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(_QWEN2))


if __name__ == "__main__":
    main()
