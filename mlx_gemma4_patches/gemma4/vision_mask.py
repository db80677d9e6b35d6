"""Which tokens attend to which in the Gemma 4 models that look at an image as a whole.

26B-A4B, 31B and 12B have ``use_bidirectional_attention: "vision"`` in their text config. There, in
sliding-window layers, a soft token of an image attends to the later soft tokens of that image too;
how far back it attends, the window says, within the image as well. Full-attention layers are
causal, and so is everything else. An image is an unbroken run of soft tokens: real prompts have
start and end tokens around each image and around each frame of a video.

Source: transformers 5.23, ``create_masks_for_vision_model`` (huggingface/transformers#46850), which
up to 5.9 let soft tokens look ahead in all layers, at any distance. vLLM has the same rule since
vllm-project/vllm#40534 and #47217, which measured the 12B.

Of the 12B, transformers 5.23 and 5.24 have two rules. ``create_masks_for_generate``, which static
caches use, makes the masks above: 946 pairs of tokens attend in full-attention layers and 774 in
sliding-window layers of the text of ``probe``. ``Gemma4UnifiedModel.forward``, and with it
``generate()`` as it is called by default, lets soft tokens look ahead in all layers, at any
distance: 1152 and 784. Google's own library and vLLM keep full-attention layers causal, and so do
we: references for the 12B are made with the masks given, or with a static cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from ..patch import Finding
from . import tiny


def applies(text_config: Any) -> bool:
    """Whether a host's config object of a text model asks for it."""
    return getattr(text_config, "use_bidirectional_attention", None) == "vision"


def sliding_mask(causal: mx.array, images: mx.array) -> mx.array:
    """The mask of sliding-window layers.

    Args:
        causal: bool (N, K) or (B, 1, N, K), True where a text model's sliding-window layer lets the
            query attend to the key: causal, within the window, no padding. The queries are the
            last N of the K keys.
        images: bool (B, N), which queries are soft tokens. No image may continue behind the last.

    Returns bool (B, 1, N, K).
    """
    length, keys = causal.shape[-2:]
    query = mx.arange(length)
    key = mx.arange(length - keys, length)  # those before the first query are below 0
    # of each query, the next that is no soft token: the end of its image
    end = mx.cummin(mx.where(images, length, query), axis=1, reverse=True)
    later_in_its_image = (key > query[:, None]) & (key < end[..., None])
    return causal | later_in_its_image[:, None]


def probe(layer_sees: Callable[[str, mx.array], mx.array]) -> Finding:
    """Compare who attends to whom in a text with three images with the rule, written out.

    ``layer_sees`` is given a layer type and ids (1, L) and answers with bool (L, L), query by key:
    whether the output of one layer of this type depends on the key. One image is larger than the
    window of 16; two stand side by side.
    """
    begin, end, image = (tiny.config("dense")[f"{k}_token_id"] for k in ("boi", "eoi", "image"))
    text = tiny.prompt(8)
    ids = [*text[:3], begin, *[image] * 20, end, text[3], begin, *[image] * 4, end, begin]
    ids += [*[image] * 5, end, *text[4:]]
    number = [sum(i == begin for i in ids[:at]) if i == image else 0 for at, i in enumerate(ids)]
    window = tiny.config("dense")["text_config"]["sliding_window"]

    def attends(layer_type: str, q: int, k: int) -> bool:
        if layer_type == "full_attention":
            return k <= q
        return k > q - window and (k <= q or number[k] == number[q] > 0)

    wrong = {}
    for layer_type in ("sliding_attention", "full_attention"):
        seen = layer_sees(layer_type, mx.array([ids])).tolist()
        wrong[layer_type] = sum(
            seen[q][k] != attends(layer_type, q, k)
            for q in range(len(ids))
            for k in range(len(ids))
        )
    counted = ", ".join(f"{n} in {layer_type}" for layer_type, n in wrong.items())
    return Finding(any(wrong.values()), f"pairs of tokens that attend wrongly: {counted}")
