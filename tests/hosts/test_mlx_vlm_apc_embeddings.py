"""The server's prompts are told apart by their token ids and their media."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import hearing_model, model, processor
from tests.hosts import conversations, reuse
from tests.hosts.contract import PatchContract, skip_unless_needed
from tests.hosts.pictures import square

pytest.importorskip("mlx_vlm.apc", reason="no prefix cache in this mlx-vlm")

ID = "mlx_vlm.apc_embeddings"
TEXT = tiny.prompt(24)
PICTURE = [500, *[502] * 4, 501]
SOUND = [504, *[505] * 4, 506]


def key(of: Any, **prompt_kwargs: Any) -> int:
    """The key that a batch generator of a model gives what belongs to a prompt."""
    generate, apc = (importlib.import_module(f"mlx_vlm.{m}") for m in ("generate", "apc"))
    made = generate.BatchGenerator(of.language_model, processor(), apc_manager=apc.APCManager(4))
    return made._apc_extra_hash(prompt_kwargs)


def served(of: Any, ids: list[int], **media: Any) -> dict[str, Any]:
    """What the server hands to a batch generator with a prompt."""
    server = importlib.import_module("mlx_vlm.server").ResponseGenerator
    asked = SimpleNamespace(model=of, vision_cache=None, apc_manager=object())
    return server._gpu_embed(asked, {"input_ids": mx.array([ids]), **media})[1]


class _Other:
    """A model that is no Gemma 4."""

    def get_input_embeddings(self, ids: mx.array, *rest: Any, **how: Any) -> Any:
        embedded = {"inputs_embeds": ids[..., None].astype(mx.float32)}
        return SimpleNamespace(to_dict=lambda: embedded)


class TestApcEmbeddings(PatchContract):
    id = ID

    def untouched(self) -> Any:
        made = model("e2b")
        given = made.get_input_embeddings(mx.array([TEXT]), None).to_dict()
        return [
            key(made, **given),
            key(made, inputs_embeds=mx.ones((1, 4, 8)), _apc_image_hash=3, _apc_tenant="a"),
            key(made),
            served(_Other(), TEXT),
            key(made, **served(_Other(), TEXT)),
        ]


def test_a_picture_is_known_in_the_next_turn_and_another_is_not() -> None:
    skip_unless_needed(ID)
    made, wide = model("e2b"), mx.array(tiny.image(1, 4, 1))
    prompt = [*TEXT[:4], *PICTURE, *PICTURE, *TEXT[4:9]]

    def of(*pixels: mx.array, ids: list[int] = prompt) -> int:
        one_size = all(p.shape == pixels[0].shape for p in pixels)
        values = mx.stack(pixels) if one_size else list(pixels)
        return key(made, **served(made, ids, pixel_values=values))

    assert of(square(1), square(2)) == of(square(1), square(2), ids=[*prompt, *TEXT[9:]])
    shown = [(square(1), square(2)), (square(2), square(1)), (square(1), square(3))]
    shown += [(square(1), wide), (wide, square(1)), (square(1), square(1) + 1e-4)]
    keys = [of(*pixels) for pixels in shown]
    assert len(set(keys)) == len(keys)
    assert key(made, **served(made, TEXT)) not in keys


def test_a_sound_is_known_in_the_next_turn_and_another_is_not() -> None:
    skip_unless_needed(ID)
    made, prompt = hearing_model(), [*TEXT[:4], *SOUND, *TEXT[4:9]]
    heard = {seed: mx.random.normal((1, 16, 128), key=mx.random.key(seed)) for seed in (1, 2)}

    def of(seed: int, ids: list[int] = prompt, until: int = 16) -> int:
        mask = mx.arange(16)[None] < until
        return key(made, **served(made, ids, input_features=heard[seed], input_features_mask=mask))

    assert of(1) == of(1, [*prompt, *TEXT[9:]])
    assert len({of(1), of(2), of(1, until=14), key(made, **served(made, TEXT))}) == 4


def test_tenants_know_nothing_of_each_other() -> None:
    made = model("dense")
    keys = {
        key(made, **served(made, TEXT), **who)
        for who in ({}, {"_apc_tenant": "a"}, {"_apc_tenant": "b"})
    }
    assert len(keys) == 3


def test_pictures_and_sounds_are_answered_as_in_a_fresh_run(tmp_path: Path) -> None:
    skip_unless_needed(ID)
    with reuse.client(reuse.ROUTES["mlx_vlm APC"], tmp_path / "model") as made:
        conversations.pictures(made.ask)
        conversations.more_pictures(made.ask)
        conversations.sounds(made.ask)
    assert not any(turn.wrong for turn in made.turns)
