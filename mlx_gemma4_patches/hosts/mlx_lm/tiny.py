"""mlx-lm's own Gemma 4 with the tiny weights, for probes and tests."""

from __future__ import annotations

from typing import Any

from ...gemma4 import tiny, tiny_assistant


def text_model(shape: str) -> Any:
    """The host's ``gemma4.Model`` of one shape of ``gemma4.tiny.SHAPES``, float32, no files.

    Raises ValueError when the release's parameters are not those of a Hugging Face checkpoint.
    """
    from mlx_lm.models import gemma4

    model = gemma4.Model(gemma4.ModelArgs.from_dict(tiny.config(shape)))
    # Releases differ on k/v of the KV-shared layers: give this one what it has.
    shared_kv = "k_proj" in model.layers[-1].self_attn
    weights = model.sanitize(tiny.weights(shape, shared_kv=shared_kv))
    model.load_weights(list(weights.items()))
    return model.eval()


def assistant(shape: str) -> Any:
    """The assistant of one shape, as the host makes it from its config, float32, no files.

    Raises ValueError where the host knows no such type of model.
    """
    from mlx_lm.utils import _get_classes

    config = tiny_assistant.config(shape)
    kind, arguments = _get_classes(config)
    made = kind(arguments.from_dict(config))
    made.load_weights(list(made.sanitize(tiny_assistant.weights(shape)).items()))
    return made.eval()
