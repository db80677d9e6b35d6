"""Keys and values that the last layers of E2B and E4B share with an earlier layer.

A KV-shared layer attends with the keys and values of the last layer of its type that has its own.
Google's checkpoints hold k_proj, v_proj and k_norm for it too, and so do conversions of them;
transformers neither reads nor saves these, and quantization-aware checkpoints lack them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

NAMES = ("k_proj", "v_proj", "k_norm")

# a layer of the text model, as Hugging Face and the hosts name it; no layer of a tower
_OWN = re.compile(
    rf"(?:^|\.)(?:model|language_model)\.layers\.(\d+)\.self_attn\.(?:{'|'.join(NAMES)})\."
)


def without(weights: Mapping[str, Value], first_shared: int) -> dict[str, Value]:
    """``weights`` without the tensors that KV-shared layers do not use, quantized ones included.

    Args:
        weights: tensors by name, in a Hugging Face or a host's layout.
        first_shared: index of the first KV-shared layer; the number of layers where none is.
    """
    return {
        name: value
        for name, value in weights.items()
        if not (found := _OWN.search(name)) or int(found[1]) < first_shared
    }
