"""The cache classes of mlx-vlm, which are its own since 0.6.4 and mlx-lm's before."""

from __future__ import annotations

from types import ModuleType

from ...patch import NotApplicable

CACHES = "mlx_vlm.models.cache"


def own_caches() -> ModuleType:
    """The module ``mlx_vlm.models.cache``.

    Raises:
        NotApplicable: its batch caches are mlx-lm's, whose patches serve them.
    """
    from mlx_vlm.models import cache

    if cache.BatchKVCache.__module__ != CACHES:
        raise NotApplicable("this mlx-vlm uses mlx-lm's caches")
    return cache
