"""The child that compares a conversion with the original, which transformers computes.

``python -m mlx_gemma4_patches.trace.original FOLDER FILE`` reads what ``conversion`` wrote and
tells each tensor's error, and that of transformers in bfloat16, against transformers in float32. Of
the original's weights those of one layer are in memory at a time: each is read when its layer is
about to run, and dropped when it has. Of the embedding tables the rows of the prompt are read.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from ..children import tell
from .limits import FACTOR
from .torch_taps import watch_layer, watch_norm

_TABLE = "embed_tokens.weight"
_BLOCK = 8192  # rows of the output head that are in memory at a time
Tensors = dict[str, torch.Tensor]


class Weights:
    """The safetensors of a folder; counts how many bytes are in memory."""

    def __init__(self, folder: Path):
        self.held = self.most = 0  # bytes
        self.most_of = ""
        self._files = {}
        for file in sorted(folder.glob("*.safetensors")):
            opened = safe_open(file, "pt")
            self._files |= dict.fromkeys(opened.keys(), opened)
        tables = [name for name in self._files if name.endswith(_TABLE)]
        if len(tables) != 1:
            raise SystemExit(f"{folder} has {len(tables)} tensors that are called {_TABLE}, not 1")
        self.start = tables[0].removesuffix(_TABLE)  # what names of the text model begin with

    def whole(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        return self._files[self.start + name].get_tensor(self.start + name).to(dtype)

    def rows(self, name: str, ids: list[int], dtype: torch.dtype) -> torch.Tensor:
        part = self._files[self.start + name].get_slice(self.start + name)
        return torch.cat([part[i : i + 1] for i in ids]).to(dtype)

    def head_in_blocks(self, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        name = self.start + _TABLE  # unless the head is not tied to it
        name = "lm_head.weight" if "lm_head.weight" in self._files else name
        part = self._files[name].get_slice(name)
        for start in range(0, part.get_shape()[0], _BLOCK):
            yield part[start : start + _BLOCK].to(dtype)

    def hold(self, what: str, tensors: Tensors) -> None:
        self.held += _bytes(tensors)
        if self.held > self.most:
            self.most, self.most_of = self.held, what

    def drop(self, tensors: Tensors) -> None:
        self.held -= _bytes(tensors)


def _bytes(tensors: Tensors) -> int:
    return sum(value.nbytes for value in tensors.values())


class _Rows(nn.Module):
    """A scaled embedding, of which the rows that are asked for are read."""

    def __init__(self, weights: Weights, name: str, scale: float, dtype: torch.dtype):
        super().__init__()
        self._read = lambda ids: weights.rows(name, ids, dtype)
        self._scale = torch.tensor(scale).to(dtype)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self._read(ids.flatten().tolist()).reshape(*ids.shape, -1) * self._scale


def computed(folder: Path, ids: list[int], dtype: torch.dtype, say: Callable) -> tuple:
    """Every tensor on the way, (tokens, width) of ``dtype``, and the ``Weights`` they came from."""
    from transformers import AutoConfig, AutoModel

    config, weights = AutoConfig.from_pretrained(folder).get_text_config(), Weights(folder)
    with torch.device("meta"):
        model = AutoModel.from_config(config).eval()
    model.rotary_emb = type(model.rotary_emb)(config)  # has no weights
    made: Tensors = {}

    def keep(name: str, value: torch.Tensor) -> None:
        made[name] = value.detach().flatten(1).clone()

    for name in ("embed_tokens", "embed_tokens_per_layer"):
        if table := getattr(model, name, None):
            scale = table.scalar_embed_scale
            setattr(model, name, _Rows(weights, f"{name}.weight", scale, dtype))
    for name, part in model.named_children():
        if name not in ("layers", "rotary_emb") and not isinstance(part, _Rows):
            weights.hold(name, _load(part, f"{name}.", weights, dtype))
    for index, layer in enumerate(model.layers):
        _stream(layer, index, len(model.layers), weights, dtype, say)
        watch_layer(layer, index, keep)
    watch_norm(model.norm, keep)
    with torch.no_grad():
        hidden = model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0, -1]
        logits = torch.cat([block @ hidden for block in weights.head_in_blocks(dtype)])
    if (cap := config.final_logit_softcapping) is not None:
        logits = torch.tanh(logits / cap) * cap
    made["logits"] = logits[None]
    return made, weights


def _load(module: nn.Module, start: str, weights: Weights, dtype: torch.dtype) -> Tensors:
    tensors = {name: weights.whole(start + name, dtype) for name in module.state_dict()}
    module.load_state_dict(tensors, assign=True)
    return tensors


def _stream(
    layer: nn.Module, index: int, count: int, weights: Weights, dtype: torch.dtype, say: Callable
) -> None:
    held: Tensors = {}

    def load(*_: Any) -> None:
        say(f"layer {index + 1} of {count} in {str(dtype).removeprefix('torch.')}")
        held.update(_load(layer, f"layers.{index}.", weights, dtype))
        weights.hold(f"layer {index}", held)

    def drop(*_: Any) -> None:
        layer.to_empty(device="meta")
        weights.drop(held)
        held.clear()

    layer.register_forward_pre_hook(load)
    layer.register_forward_hook(drop)


def main(folder: str, file: str) -> None:
    stored = load_file(file)
    ids = stored.pop("ids").tolist()

    def say(what: str) -> None:
        tell("begin", f"transformers: {what}")

    truth, weights = computed(Path(folder), ids, torch.float32, say)
    half, _ = computed(Path(folder), ids, torch.bfloat16, say)
    for name, value in truth.items():
        if name not in stored:
            continue
        places = stored[f"{name}/places"].long()
        want, got = value[places], stored[name]
        same_size = want.shape == got.shape
        tell(
            "tensor",
            name,
            {
                "error": _error(got, want) if same_size else math.inf,
                "limit": FACTOR * _error(half[name].float()[places], want),
                "position": None,
            },
        )
    said = [int(logits.argmax()) for logits in (stored["logits"], truth["logits"])]
    tell("next", *_texts(folder, said))
    tell("memory", weights.most, weights.most_of)


def _error(values: torch.Tensor, truth: torch.Tensor) -> float:
    values, truth = values.double(), truth.double()
    return float(((values - truth).square().mean() / truth.square().mean()).sqrt())


def _texts(folder: str, ids: list[int]) -> list[str]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [json.dumps(tokenizer.decode([i]), ensure_ascii=False) for i in ids]


if __name__ == "__main__":
    main(*sys.argv[1:])
