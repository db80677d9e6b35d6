"""mlx-lm's Gemma 4 on 1, 2 and 4 machines: ``python -m tests.hosts.machines``, some minutes.

For each tiny shape in float32, bfloat16 and 4 bits: how far the logits are from those of one
process, how many greedy tokens are the same, and how many bytes each process holds; with weights
that are divided, and in a pipeline. Ends with 1 where they are too far away. Then, on paper, what a
machine of several holds of the published sizes in 4 bits, and what it sends for each token. With
words such as ``pipeline moe`` it runs what they all name.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

import mlx_gemma4_patches
from mlx_gemma4_patches.gemma4 import sizes, tiny
from mlx_gemma4_patches.hosts.mlx_lm import pipelining, sharding
from tests.hosts import checkpoints, sharded, tokenizer

# how far logits may be; in bfloat16 those of one process are 2.3 from transformers in float32
KINDS = {"float32": 1e-3, "bfloat16": 2.3, "4 bits": 1e-3}
COUNTS = (2, 4)
WAYS = {"divided": (), "pipeline": ("--pipeline",)}


def save(shape: str, kind: str, folder: Path) -> Path:
    """A tiny checkpoint of one of ``KINDS``, and which shape it is."""
    from mlx_lm.utils import load_model

    tiny.save(shape, folder, dtype=mx.bfloat16 if kind == "bfloat16" else mx.float32)
    tokenizer.save(folder)
    (folder / "shape.json").write_text(json.dumps(shape))
    if kind == "4 bits":
        model, _ = load_model(folder)
        nn.quantize(model, checkpoints.GROUP, 4)  # experts too
        checkpoints.change(
            folder,
            lambda config: checkpoints.quantization(config, 4),
            lambda _: dict(tree_flatten(model.parameters())),
            "mlx",
        )
    return index(folder)


def index(folder: Path) -> Path:
    """A checkpoint with the index that a conversion has, and a pipeline is loaded by."""
    from mlx_lm.utils import load_model

    model, _ = load_model(folder, lazy=True)
    names = {name: "model.safetensors" for name, _ in tree_flatten(model.parameters())}
    file = folder / "model.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": names}))
    return folder


def compare(folder: Path, count: int, *options: str) -> tuple[float, list[str], list[int]]:
    """The distance of logits, counts of equal tokens, and bytes of one process and of ``count``."""
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)
    alone = sharded.answers(model, json.loads((folder / "shape.json").read_text()))
    done, out = sharded.launch(folder, count, *options), folder / "out.safetensors"
    assert out.exists(), done.stdout + done.stderr  # releases of mlx differ in the exit code
    together = mx.load(str(out))
    far = max(mx.abs(together[n] - alone[n]).max().item() for n in ("logits", "image_logits"))
    same = [
        f"{(together[name] == alone[name]).sum().item()}/{alone[name].size}"
        for name in ("greedy", "image_greedy", "turns", "batch")
    ]
    return far, same, [sharded.nbytes(model), *together["nbytes"].tolist()]


def on_paper(name: str, count: int) -> tuple[int, int, int]:
    """Bytes that the fullest of ``count`` machines holds of a size, sums a token, bytes sent.

    A ring sends 2 (n - 1) / n times what it adds up; activations have 2 bytes.
    """
    held, model = _fullest(name, count, sharding.shard)
    config = sizes.text_config(name)
    parts = [part for _, part in model.named_modules()]
    hidden = config["hidden_size"] * sum(isinstance(part, sharding.Summed) for part in parts)
    table = config["num_hidden_layers"] * config["hidden_size_per_layer_input"]
    tables = sum(isinstance(part, sharding.DividedTable) for part in parts)
    sums = sum(isinstance(part, (sharding.Summed, sharding.DividedTable)) for part in parts)
    return held, sums, 2 * (hidden + table * tables) * 2 * (count - 1) // count


def _fullest(name: str, count: int, divide: Callable[[Any, Any], None]) -> tuple[int, Any]:
    """Bytes that the fullest of ``count`` machines holds of a size, and the model of the last."""
    from mlx_lm.models import gemma4_text

    held = []
    for rank in range(count):
        config = sizes.text_config(name)
        model = gemma4_text.Model(gemma4_text.ModelArgs.from_dict(config))
        nn.quantize(model, checkpoints.GROUP, 4)  # nothing is computed, here and below
        divide(model.model, SimpleNamespace(rank=lambda rank=rank: rank, size=lambda: count))
        held.append(sharded.nbytes(model))
    return max(held), model


def main(*words: str) -> int:
    mlx_gemma4_patches.activate()
    mx.set_default_device(mx.cpu)
    too_far = False
    for way, shape, kind, count in itertools.product(WAYS, tiny.SHAPES, KINDS, COUNTS):
        name = f"{way}, {shape}, {kind}, {count}"
        if (shape, kind) == ("moe", "bfloat16"):
            continue  # no gather_mm of mlx for CPUs takes it, in one process either
        if not all(word in name for word in words):
            continue
        with tempfile.TemporaryDirectory() as folder:
            saved = save(shape, kind, Path(folder))
            far, same, held = compare(saved, count, *WAYS[way])
        print(f"{name}: {far:.1e}, {', '.join(same)}, {held}", flush=True)
        too_far |= far > KINDS[kind]
    for name in () if words else ("e2b", "26b-a4b", "31b"):
        for count in (1, 2, 4, 8):
            held, sums, sent = on_paper(name, count)
            print(f"{name}, {count}: {held / 1e9:.2f} GB, {sums} sums, {sent / 1e3:.0f} kB a token")
            held, _ = _fullest(name, count, pipelining.pipeline)
            print(f"{name}, pipeline, {count}: {held / 1e9:.2f} GB")
    return int(too_far)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
