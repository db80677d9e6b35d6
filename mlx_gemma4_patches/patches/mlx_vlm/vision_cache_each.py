"""A new picture in a chat sends all pictures before it through the vision tower again.

What the user sees: the more pictures a chat with ``mlx_vlm.server`` has, the longer the first token
after a new one takes, though the conversation before it is known.

Why: what the tower has made is kept by one key of all the pictures of a prompt.

The fix: it is kept of each picture, too, by its content, in the same cache. Prompts with more
pictures than half of what the cache holds are as before. It can be deleted when the host keeps
pictures one by one.

Upstream: not reported yet.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from ...gemma4 import media, tiny
from ...hosts.mlx_vlm.tiny import model
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TARGET = "mlx_vlm.models.gemma4.gemma4:Model.get_input_embeddings"
_CACHE = "mlx_vlm.vision_cache"
_PICTURE = (500, 502, 502, 502, 502, 501)


def probe() -> Finding:
    try:
        from mlx_vlm.vision_cache import VisionFeatureCache
    except ImportError:
        raise NotApplicable("this mlx-vlm keeps nothing of pictures") from None
    made, cache, seen = model("dense"), VisionFeatureCache(), []
    pictures = mx.stack([mx.array(tiny.image(2, 2, seed)) for seed in (1, 2)])
    embed = made.embed_vision

    class Watched:
        def __call__(self, soft_tokens: mx.array) -> mx.array:
            seen.append(soft_tokens.size // soft_tokens.shape[-1] // 4)
            return embed(soft_tokens)

    made.embed_vision = Watched()
    for count in (1, 2):
        seen.clear()
        how = {"vision_cache": cache, "_image_key": f"{count} pictures"}
        made.get_input_embeddings(mx.array([[5, *_PICTURE * count, 6]]), pictures[:count], **how)
        if not len(cache):
            raise NotApplicable("this mlx-vlm keeps nothing of pictures")
    return Finding(sum(seen) > 1, f"of two pictures, one of them new, {sum(seen)} are encoded")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TARGET, _get_input_embeddings)


def _get_input_embeddings(original):
    def get_input_embeddings(self, input_ids=None, pixel_values=None, *args, **kwargs):
        cache, key = kwargs.get("vision_cache"), kwargs.get("_image_key")
        if (
            not args
            and pixel_values is not None
            and key is not None
            and type(cache).__module__ == _CACHE  # a caller's own may hold what it likes
            and kwargs.get("cached_image_features") is None
            and 2 * len(pixel_values) <= cache.max_size
            and cache.get(key) is None
        ):
            features = _features(self, cache, pixel_values, kwargs.get("image_position_ids"))
            cache.put(key, features)
        return original(self, input_ids, pixel_values, *args, **kwargs)

    return get_input_embeddings


def _features(model: Any, cache: Any, pixel_values: Any, positions: Any) -> mx.array:
    """What the tower makes of pictures, each taken from the cache if it is there."""
    given = {"pixel_values": pixel_values, "image_position_ids": positions}
    given = {name: values for name, values in given.items() if values is not None}
    made = []
    for i in range(len(pixel_values)):
        one = {name: values[i] for name, values in given.items()}
        key = f"picture:{media.digest(one).hex()}"
        if (features := cache.get(key)) is None:
            features = model.encode_image(*(values[i : i + 1] for values in given.values()))
            mx.eval(features)
            cache.put(key, features)
        made.append(features)
    return mx.concatenate(made, axis=-2) if len(made) > 1 else made[0]


PATCH = Patch(
    id="mlx_vlm.vision_cache_each",
    targets=(
        f"{_TARGET}(self, input_ids, pixel_values)",
        # these are called
        "mlx_vlm.models.gemma4.gemma4:Model.encode_image(self, pixel_values)",
        f"{_CACHE}:VisionFeatureCache.get(self, image_source)",
        f"{_CACHE}:VisionFeatureCache.put(self, image_source, features)",
    ),
    apply=apply,
    probe=probe,
)
