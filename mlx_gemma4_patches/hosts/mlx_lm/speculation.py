"""What the patches of speculative decoding share."""

from __future__ import annotations

from typing import Any

STEP = "mlx_lm.generate:speculative_generate_step"


class View:
    """A model with some attributes replaced; the model itself stays as it is."""

    def __init__(self, model: Any, /, **replaced: Any):
        vars(self).update(replaced, _model=model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._model(*args, **kwargs)

    @property
    def __class__(self) -> type:  # two patches may look through each other's view
        return self._model.__class__


class Caches(list):
    """Caches in another form than in the caller's list, in the same order."""

    def __init__(self, caches: list[Any], made: list[Any]):
        super().__init__(made)
        self._given = caches

    @staticmethod
    def origin(caches: list[Any]) -> list[Any]:
        """The caller's list."""
        return caches._given if isinstance(caches, Caches) else caches
