"""No turn of a conversation is found in the server's prefix cache.

What the user sees: with ``APC_ENABLED=1`` every turn of ``mlx_vlm.server`` is processed as if the
conversation were new.

Why: from 0.6.7 on the key of a prompt has a hash of the embeddings of all its tokens, so that no
prompt has the key of one that it continues.

The fix: the server's prompts have a hash of their media in its place; the embeddings of the rest
follow from the token ids. Embeddings that come from elsewhere are hashed as before. It can be
deleted when no supported release is older than 0.6.13, where the server does likewise.
"""

from __future__ import annotations

import importlib

from ...gemma4 import tiny
from ...hosts.mlx_vlm.media_key import OfAllMedia, media_key
from ...hosts.mlx_vlm.models import is_gemma4
from ...hosts.mlx_vlm.tiny import embedded_by_server, model, processor
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_EMBED = "mlx_vlm.server.generation:ResponseGenerator._gpu_embed"
_KEY = "mlx_vlm.generate:BatchGenerator._apc_extra_hash"


def probe() -> Finding:
    try:
        from mlx_vlm.apc import APCManager
    except ImportError:
        raise NotApplicable("this mlx-vlm has no prefix cache") from None
    made, prompt, manager = model("dense"), tiny.prompt(12), APCManager(num_blocks=4)
    generator = importlib.import_module("mlx_vlm.generate").BatchGenerator(
        made.language_model, processor(), apc_manager=manager
    )
    turns = [embedded_by_server(made, ids, manager) for ids in (prompt[:8], prompt)]
    first, second = map(generator._apc_extra_hash, turns)
    found = "the key of" if first == second else "another key than"
    return Finding(first != second, f"a prompt has {found} the one that it continues")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_EMBED, _gpu_embed)
    surgery.wrap(_KEY, _extra_hash)


def _gpu_embed(original):
    def _gpu_embed(self, raw_inputs, images=None):
        input_ids, kwargs = original(self, raw_inputs, images)
        has_cache = getattr(self, "apc_manager", None) is not None
        is_done = isinstance(kwargs.get("_apc_image_hash"), OfAllMedia)  # by prefix_reuse_media
        if has_cache and is_gemma4(self.model) and not is_done:
            kwargs["_apc_image_hash"] = OfAllMedia(media_key(raw_inputs))
        return input_ids, kwargs

    return _gpu_embed


def _extra_hash(original):
    def _apc_extra_hash(self, prompt_kwargs):
        given = prompt_kwargs or {}
        if isinstance(given.get("_apc_image_hash"), OfAllMedia):
            given = {name: given[name] for name in self._APC_PRIVATE_KEYS if name in given}
        return original(self, given)

    return _apc_extra_hash


PATCH = Patch(id="mlx_vlm.apc_embeddings", targets=(_EMBED, _KEY), apply=apply, probe=probe)
