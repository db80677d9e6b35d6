"""Two images in the other order get the answer to the first order.

What the user sees: with continuous batching, "which of the two ..." is answered alike when the
images change places. 0.2.7 and 0.2.8 also take images for the same that begin with the same 64 KiB.

Why: the cache of preprocessed images finds them by their sorted hashes (and by that of their
beginning, up to 0.2.8) and the prompt, which are the same then.

The fix: the key also has a hash of all bytes of all images in their order. It can be deleted when
vllm-mlx does not sort.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...patch import Finding, Patch
from ...surgery import Surgery

_MODULE = "vllm_mlx.vision_embedding_cache"
_KEY = f"{_MODULE}:VisionEmbeddingCache._make_key"


def probe() -> Finding:
    from vllm_mlx.vision_embedding_cache import VisionEmbeddingCache

    cache = VisionEmbeddingCache()
    cache.set_pixel_cache(["one", "two"], "hi", "pixels of one and two", "ids")
    found = cache.get_pixel_cache(["two", "one"], "hi")
    pixels = found and found.pixel_values
    taken = "those of one and two" if pixels else "not found"
    return Finding(pixels is not None, f"pixels of the images two and one in the cache: {taken}")


def apply(surgery: Surgery) -> None:
    def make(original):
        def _make_key(self, images, prompt):
            digest = hashlib.sha256(b"".join(map(_digest, images))).hexdigest()
            return f"{original(self, images, prompt)}_{digest}"

        return _make_key

    surgery.wrap(_KEY, make)


def _digest(image) -> bytes:
    """Of an image's file, or of its name where it is none."""
    try:
        content = Path(image).read_bytes()
    except (OSError, ValueError, TypeError):
        content = str(image).encode()
    return hashlib.sha256(content).digest()


PATCH = Patch(
    id="vllm_mlx.vision_cache_key",
    targets=(_KEY, f"{_MODULE}:compute_images_hash", f"{_MODULE}:compute_image_hash"),
    apply=apply,
    probe=probe,
)
