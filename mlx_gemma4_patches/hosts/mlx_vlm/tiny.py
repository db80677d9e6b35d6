"""mlx-vlm's own Gemma 4 with the tiny weights, for probes and tests."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import mlx.core as mx

from ...gemma4 import tiny, tiny_audio


def model(shape: str) -> Any:
    """The host's ``gemma4.Model`` of one shape of ``gemma4.tiny.SHAPES``, float32, no files.

    Raises ValueError when the release's parameters are not those of a Hugging Face checkpoint.
    """
    from mlx_vlm.models import gemma4

    settings = tiny.config(shape)
    config = gemma4.ModelConfig.from_dict(settings)
    config.text_config = gemma4.TextConfig.from_dict(settings["text_config"])
    config.vision_config = gemma4.VisionConfig.from_dict(settings["vision_config"])
    made = gemma4.Model(config)
    # Releases differ on k/v of the KV-shared layers: give this one what it has.
    shared_kv = "k_proj" in made.language_model.model.layers[-1].self_attn
    weights = tiny.weights(shape, shared_kv=shared_kv)
    for part in (made, made.vision_tower, made.language_model):
        weights = part.sanitize(weights)
    made.load_weights(list(weights.items()))
    return made.eval()


def model_for(soft_tokens: int) -> Any:
    """``model("dense")``, before 0.6.4 with room for pictures of so many soft tokens."""
    made = model("dense")
    tower = made.vision_tower
    tower.default_output_length = tower.pooler.default_output_length = soft_tokens
    tower.max_patches = 9 * soft_tokens
    return made


def hearing_model() -> Any:
    """The host's ``gemma4.Model`` of shape "e2b" with an audio tower, float32, no files."""
    from mlx_vlm.models.gemma4 import AudioConfig
    from mlx_vlm.models.gemma4.audio import AudioEncoder
    from mlx_vlm.models.gemma4.gemma4 import MultimodalEmbedder

    made = model("e2b")
    made.config.audio_config = AudioConfig.from_dict(tiny_audio.CONFIG)
    made.audio_tower = AudioEncoder(made.config.audio_config)
    hidden = made.config.text_config.hidden_size
    made.embed_audio = MultimodalEmbedder(tiny_audio.CONFIG["output_proj_dims"], hidden)
    weights = made.sanitize(tiny_audio.weights(hidden))
    made.load_weights(list(weights.items()), strict=False)
    return made.eval()


def unified_model() -> Any:
    """The host's ``gemma4_unified.Model`` with the text of shape "dense" and no vision weights.

    Raises ImportError where the host has none.
    """
    from mlx_vlm.models import gemma4_unified

    settings = {**tiny.config("dense"), "model_type": "gemma4_unified", "vision_config": None}
    made = gemma4_unified.Model(gemma4_unified.ModelConfig.from_dict(settings))
    made.language_model.load_weights(
        [
            (name.removeprefix("language_model."), value)
            for name, value in made.sanitize(tiny.weights("dense")).items()
            if name.startswith("language_model.")
        ]
    )
    return made.eval()


def embedded_by_server(
    model: Any, ids: list[int], manager: Any, tenant: str | None = None, **media: Any
) -> dict[str, Any]:
    """What the server gives a ``BatchGenerator`` beside ``ids``.

    Args:
        manager: of the prefix cache, None without one.
        media: what a processor makes of pictures and sounds.
    """
    apc, generate, server = (
        importlib.import_module(f"mlx_vlm.{m}") for m in ("apc", "generate", "server")
    )
    asked = SimpleNamespace(model=model, vision_cache=None, apc_manager=manager)
    key = {}
    if "_apc_semantic_hash" in generate.BatchGenerator._APC_PRIVATE_KEYS:
        pixels = media.get("pixel_values")
        seen = 0 if pixels is None else apc.hash_image_payload(pixel_values=pixels)
        heard = {"audio": media.get("input_features")}
        part = model.language_model
        key["apc_semantic_hash"] = apc.semantic_extra_hash(
            tenant=tenant, image_hash=seen, media=heard, model=part
        )
    inputs = {"input_ids": mx.array([ids]), **media}
    made = server.ResponseGenerator._gpu_embed(asked, inputs, **key)[1]
    return made if key or tenant is None else {**made, "_apc_tenant": tenant}


def tokens_reused(model: Any, manager: Any, ids: list[int], **media: Any) -> int:
    """How many tokens of a prompt the prefix cache knows when a ``BatchGenerator`` answers it."""
    generator = importlib.import_module("mlx_vlm.generate").BatchGenerator(
        model.language_model, processor(), apc_manager=manager, compute_logprobs=False
    )
    given = embedded_by_server(model, ids, manager, **media)
    generator.insert([ids], 1, prompt_kwargs=[given])
    before = manager.stats.matched_tokens
    while generator.has_work:
        generator.next()
    return manager.stats.matched_tokens - before


def layer_sees(
    model: Any, logits: Callable[[mx.array, mx.array], mx.array]
) -> Callable[[str, mx.array], mx.array]:
    """What ``gemma4.vision_mask.probe`` asks for.

    Args:
        model: a Gemma 4; it is left with one layer.
        logits: given ids (B, L) and embeddings (B, L, hidden), makes it answer.
    """
    text_model = model.language_model.model
    layers = text_model.layers

    def sees(layer_type: str, ids: mx.array) -> mx.array:
        text_model.layers = [next(x for x in layers if x.layer_type == layer_type)]
        embeddings = model.get_input_embeddings(ids, None).inputs_embeds
        length = ids.shape[1]
        # row 0 as it is, in row 1 + k another embedding in place k
        rows = mx.broadcast_to(embeddings, (1 + length, *embeddings.shape[1:]))
        changed = mx.concatenate([mx.zeros((1, length)), mx.eye(length)])[..., None]
        rows = mx.where(changed > 0, mx.roll(rows, 1, axis=-1), rows)
        made = logits(mx.broadcast_to(ids, rows.shape[:2]), rows)
        return (mx.abs(made[1:] - made[:1]).max(axis=-1) > 1e-6).T

    return sees


def processor() -> Any:
    """A processor whose texts are token ids with spaces between; no token ends an answer."""
    return SimpleNamespace(tokenizer=_Tokenizer(), detokenizer=_Detokenizer(), chat_template=None)


class _Tokenizer:
    pad_token, pad_token_id = "0", 0

    def __init__(self) -> None:
        self.stopping_criteria = _NoEnd()

    def __call__(self, texts: list[str], **how: Any) -> Any:
        rows = [[int(word) for word in text.split()] for text in texts]
        padding = [max(map(len, rows)) - len(row) for row in rows]
        return SimpleNamespace(
            input_ids=mx.array([[0] * n + row for n, row in zip(padding, rows, strict=True)]),
            attention_mask=mx.array(
                [[0] * n + [1] * len(row) for n, row in zip(padding, rows, strict=True)]
            ),
        )

    def apply_chat_template(self, messages: list[dict[str, Any]], **how: Any) -> str:
        content = messages[-1]["content"]
        return content if isinstance(content, str) else content[-1]["text"]


class _NoEnd:
    def __call__(self, token: int) -> bool:
        return False

    def add_eos_token_ids(self, tokens: Any) -> None:
        pass


class _Detokenizer:
    last_segment = ""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def reset(self) -> None:
        self.tokens = []

    def add_token(self, token: int, *rest: Any, **how: Any) -> None:
        self.tokens.append(token)

    def finalize(self) -> None:
        pass

    @property
    def text(self) -> str:
        return " ".join(map(str, self.tokens))
