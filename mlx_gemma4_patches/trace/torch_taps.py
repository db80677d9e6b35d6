"""What a Gemma 4 of transformers computes on the way, by the names that ``taps`` gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Keep = Callable[[str, Any], None]


def watch_layer(layer: Any, index: int, keep: Keep) -> None:
    """Give ``keep`` the tensors of a decoder layer, (tokens, ...) each, whenever it runs.

    Of layers whose keys and values later ones use, those too.
    """

    def before(_: Any, args: tuple[Any, ...], how: dict[str, Any]) -> None:
        hidden = args[0] if args else how["hidden_states"]
        if index == 0:
            keep("embeddings", hidden[0])
        per_layer = args[1] if len(args) > 1 else how.get("per_layer_input")
        if per_layer is not None:
            keep(f"layer {index} per-layer input", per_layer[0])

    def attended(attention: Any, _: Any, how: dict[str, Any], out: tuple[Any, ...]) -> None:
        keep(f"layer {index} attention", out[0][0])
        if attention.store_full_length_kv and attention.config.num_kv_shared_layers:
            pair = how["shared_kv_states"][attention.layer_type]
            for name, value in zip(("keys", "values"), pair, strict=True):
                keep(f"layer {index} shared {name}", value[0].transpose(0, 1))

    layer.register_forward_pre_hook(before, with_kwargs=True)
    layer.self_attn.register_forward_hook(attended, with_kwargs=True)
    layer.mlp.register_forward_hook(lambda *a: keep(f"layer {index} MLP", a[-1][0]))
    if getattr(layer, "enable_moe_block", False):
        layer.experts.register_forward_hook(lambda *a: keep(f"layer {index} experts", a[-1]))
    layer.register_forward_hook(lambda *a: keep(f"layer {index}", a[-1][0]))


def watch_norm(norm: Any, keep: Keep) -> None:
    norm.register_forward_hook(lambda *a: keep("final norm", a[-1][0]))


def watch_assistant(assistant: Any, keep: Keep) -> None:
    """What an assistant computes of each draft, (1, ...)."""
    for index, layer in enumerate(assistant.model.layers):
        watch_layer(layer, index, keep)
    watch_norm(assistant.model.norm, keep)
    assistant.post_projection.register_forward_hook(lambda *a: keep("next hidden", a[-1][0]))


def watch_media(embedder: Any, name: str, keep: Keep) -> None:
    """The soft tokens that a tower gives the text model, (soft tokens, hidden)."""
    embedder.register_forward_hook(lambda *a: keep(name, a[-1].flatten(0, -2)))
