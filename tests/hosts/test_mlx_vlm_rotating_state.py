"""A batch goes on from its stored caches as if it had never been stored."""

from __future__ import annotations

from tests.hosts import test_mlx_lm_rotating_state


class TestRotatingState(test_mlx_lm_rotating_state.TestRotatingState):
    id = "mlx_vlm.rotating_state"

    def saved_and_loaded(self, layers: list, folder) -> list:
        # mlx-vlm writes no cache files; it keeps states
        return [
            type(layer).from_state(layer.state, layer.meta_state)
            if hasattr(layer, "meta_state")  # else mlx-lm's, 0.32.0 or newer
            else type(layer).from_state(layer.state)
            for layer in layers
        ]
