"""A turn with a new picture or sound processes the whole conversation again.

What the user sees: in a chat with ``mlx_vlm.server``, the turn that shows a picture takes as long
as if the conversation were new, and so does the next that shows another.

Why: the key of a prompt has one hash of all its pictures and sounds, so that no prompt has the key
of one with a medium more; and what leaves a medium to be read is refused.

What is added: the media are told apart by ids of their content in place of the placeholders
(``gemma4.media_ids``), and the key is that of a prompt that shows nothing. The server embeds every
prompt as a whole, so nothing hinders going on before a medium. Prompts with videos, or with a
medium of fewer than four soft tokens, keep their key, and so does everything where ``prefix_reuse``
is off. It can be deleted when the host goes on before a medium.

Upstream: not reported yet.
"""

from __future__ import annotations

import importlib
from typing import Any

import mlx.core as mx

from ...gemma4 import tiny
from ...gemma4.media_ids import NAMES, Seen
from ...gemma4.placeholders import Placeholders
from ...hosts.mlx_vlm.media_key import WithIds, ids_with_media
from ...hosts.mlx_vlm.models import is_gemma4
from ...hosts.mlx_vlm.prefixes import Prefixes
from ...hosts.mlx_vlm.tiny import model, tokens_reused
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_GENERATOR = "mlx_vlm.generate:BatchGenerator"
_KEY = "mlx_vlm.apc:semantic_extra_hash"
_EMBEDS = tuple(
    f"mlx_vlm.{module}:ResponseGenerator._gpu_embed" for module in ("server", "server.generation")
)
_PICTURE = (500, 502, 502, 502, 502, 501)


def probe() -> Finding:
    try:
        from mlx_vlm.apc import APCManager
    except ImportError:
        raise NotApplicable("this mlx-vlm has no prefix cache") from None
    importlib.import_module("mlx_vlm.server")  # prefix_reuse waits for it
    made, manager = model("dense"), APCManager(num_blocks=4)
    first = [2, 105, 110, *tiny.prompt(24), *_PICTURE, 106, 105, 120]
    second = [*first, 9, 106, 105, 110, *_PICTURE, 8, 106, 105, 120]
    pictures = mx.stack([mx.array(tiny.image(2, 2, seed)) for seed in (1, 2)])
    tokens_reused(made, manager, first, pixel_values=pictures[:1])
    cached = tokens_reused(made, manager, second, pixel_values=pictures)
    wanted = len(first) - 1
    return Finding(
        cached < wanted, f"of {wanted} tokens before another picture {cached} are reused"
    )


class _OfMedia(int):
    """The key of a prompt with media."""

    without_media: int


def apply(surgery: Surgery) -> None:
    if _KEY in surgery.targets:
        surgery.wrap(_KEY, _semantic_extra_hash)
    surgery.wrap(_EMBEDS[-1] if _EMBEDS[-1] in surgery.targets else _EMBEDS[0], _gpu_embed)
    surgery.wrap(f"{_GENERATOR}._apc_pick_for", _pick_for)
    surgery.wrap(f"{_GENERATOR}._build_mixed_prompt_batch", _mixed_batch)
    surgery.wrap(f"{_GENERATOR}._build_apc_meta_for_cold", _cold_meta)


def _semantic_extra_hash(original):
    def semantic_extra_hash(*, tenant=None, image_hash=0, media=None, model=None, processor=None):
        of_all = {"tenant": tenant, "model": model, "processor": processor}
        key = original(image_hash=image_hash, media=media, **of_all)
        if is_gemma4(model):
            key = _OfMedia(key)
            key.without_media = original(**of_all)
        return key

    return semantic_extra_hash


def _gpu_embed(original):
    def _gpu_embed(self, raw_inputs, *args, **kwargs):
        input_ids, made = original(self, raw_inputs, *args, **kwargs)
        if Prefixes.of(getattr(self, "apc_manager", None)) and NAMES & raw_inputs.keys():
            _tell_apart(made, raw_inputs, Placeholders.of(self.model.config))
        return input_ids, made

    return _gpu_embed


def _tell_apart(made: dict[str, Any], inputs: dict[str, Any], placeholders: Placeholders) -> None:
    try:
        ids = Seen(inputs["input_ids"][0].tolist(), inputs, placeholders).ids
    except ValueError:
        return  # the key stays that of all media
    key = made.get("_apc_semantic_hash")
    if key is None:
        made["_apc_image_hash"] = WithIds(0, ids)
    elif isinstance(key, _OfMedia):
        made["_apc_semantic_hash"] = WithIds(key.without_media, ids)


def _pick_for(original):
    def _apc_pick_for(self, sequence):
        uid, ids, limit, more, *rest = sequence
        return original(self, (uid, ids_with_media(ids, more), limit, more, *rest))

    return _apc_pick_for


def _mixed_batch(original):
    def _build_mixed_prompt_batch(self, sequences):
        batch = original(self, sequences)
        if batch is not None and Prefixes.of(self.apc_manager):
            _put_ids(batch._apc_meta, [(sequence[1], sequence[3]) for sequence in sequences])
        return batch

    return _build_mixed_prompt_batch


def _cold_meta(original):
    def _build_apc_meta_for_cold(self, input_ids_list, prompt_kwargs_list):
        meta = original(self, input_ids_list, prompt_kwargs_list)
        if meta is not None and Prefixes.of(self.apc_manager):
            _put_ids(meta, list(zip(input_ids_list, prompt_kwargs_list, strict=True)))
        return meta

    return _build_apc_meta_for_cold


def _put_ids(meta: list[dict[str, Any] | None], prompts: list[tuple]) -> None:
    for row, (ids, more) in zip(meta, prompts, strict=True):
        if row is not None:
            row["full_input_ids"] = ids_with_media(ids, more)


PATCH = Patch(
    id="mlx_vlm.prefix_reuse_media",
    targets=(
        _KEY,
        *_EMBEDS,
        *(
            f"{_GENERATOR}.{name}"
            for name in ("_apc_pick_for", "_build_mixed_prompt_batch", "_build_apc_meta_for_cold")
        ),
    ),
    apply=apply,
    probe=probe,
)
