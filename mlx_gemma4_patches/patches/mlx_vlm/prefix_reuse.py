"""A turn of a conversation processes again what the turns before it have processed.

What the user sees: every turn of ``mlx_vlm.server`` takes as long as the whole conversation. With
``APC_ENABLED=1`` most turns with tools and thoughts still do, and so do questions that are edited.

Why: a sliding window cannot be rewound, so the server can go on only from a place it has kept. By
default it keeps none; with the prefix cache on, two: the last is one token before the end of the
prompt, behind what the chat template leaves out of the next one.

What is added: the places where Gemma 4's prompts part (``gemma4.prefix_cuts``) and the ends of
answers are kept, as the rows of the windows there and one copy of the other layers
(``gemma4.prefix_store``). They are taken out of the caches after each step of the prefill, which is
split nowhere for it. Prompts that come at once and begin alike are read once. It is on for Gemma 4
unless ``APC_ENABLED=0`` or ``MLX_GEMMA4_PATCHES_PREFIX_BYTES=0`` is set, in memory alone unless
``APC_ENABLED=1``, and takes no more than the prefix cache may. It can be deleted when the host
keeps such places by default.

Upstream: Blaizzy/mlx-vlm#1960 (related).
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from ...gemma4 import prefix_limit, tiny
from ...hosts.mlx_vlm.models import is_gemma4
from ...hosts.mlx_vlm.prefixes import Prefixes, hold, row
from ...hosts.mlx_vlm.tiny import model, tokens_reused
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_GENERATE = "mlx_vlm.generate"
_PROMPTS = f"{_GENERATE}:PromptProcessingBatch"
_ANSWERS = f"{_GENERATE}:GenerationBatch"
_NEXT = f"{_GENERATE}:BatchGenerator._next"
_INIT = f"{_GENERATE}:BatchGenerator.__init__"
_MANAGER = "mlx_vlm.apc:APCManager"
_SERVERS = ("mlx_vlm.server:ResponseGenerator", "mlx_vlm.server.generation:ResponseGenerator")
_OBSERVE = "mlx_vlm.apc_coordinator:APCCoordinator.observe_cache"  # since 0.7.2
_OFF = ("0", "false", "no")


def probe() -> Finding:
    try:
        from mlx_vlm.apc import APCManager
    except ImportError:
        raise NotApplicable("this mlx-vlm has no prefix cache") from None
    importlib.import_module("mlx_vlm.server")  # the patch waits for it
    made, manager = model("dense"), APCManager(num_blocks=4)
    first = [2, 105, 110, *tiny.prompt(24), 106, 105, 120, 100, 7, 101]  # an empty thought
    second = [*first[:-3], 9, 106, 105, 110, 8, 8, 106, 105, 120]  # is left out of the next prompt
    tokens_reused(made, manager, first)
    cached = tokens_reused(made, manager, second)
    wanted = len(first) - 3
    return Finding(cached < wanted, f"of {wanted} tokens that two turns share {cached} are reused")


def apply(surgery: Surgery) -> None:
    loads = [f"{server}._initialize_model" for server in _SERVERS]
    surgery.wrap(loads[-1] if loads[-1] in surgery.targets else loads[0], _by_default)
    surgery.wrap(_INIT, _opening)
    surgery.wrap(f"{_MANAGER}.lookup_exact_cache", _look_up)
    surgery.wrap(f"{_MANAGER}.store_exact_cache", _store)
    if _OBSERVE in surgery.targets:
        surgery.wrap(_OBSERVE, _observe)
    surgery.wrap(f"{_PROMPTS}._next_apc_checkpoint_column", _never_split)
    surgery.wrap(f"{_PROMPTS}._store_apc_exact_checkpoints", _keep_of_step)
    surgery.wrap(f"{_PROMPTS}.generate", _keep_of_last_step)
    surgery.wrap(f"{_ANSWERS}.extend", _extend)
    surgery.wrap(f"{_ANSWERS}.filter", _filter)
    surgery.wrap(f"{_ANSWERS}.next", _keep_answers)
    surgery.wrap(_NEXT, _one_by_one)


def _by_default(original):
    def _initialize_model(self):
        original(self)
        from mlx_vlm import apc

        off = os.environ.get("APC_ENABLED", "").lower() in _OFF or prefix_limit.limit() == 0
        language_model = getattr(self.model, "language_model", self.model)
        if self.apc_manager is None and not off and is_gemma4(language_model):
            self.apc_manager = apc.APCManager()
            self.apc_mode = apc.model_apc_mode(language_model)

    return _initialize_model


def _opening(original):
    def __init__(self, model, *args, **kwargs):
        original(self, model, *args, **kwargs)
        if self.apc_manager is not None and is_gemma4(model) and prefix_limit.limit() != 0:
            Prefixes.open(self.apc_manager)

    return __init__


# The host's prefix cache


def _look_up(original):
    def lookup_exact_cache(
        self, token_ids, extra_hash=0, max_prefix_tokens=None, min_prefix_tokens=0
    ):
        prefixes = Prefixes.of(self)
        if prefixes is None:
            return original(self, token_ids, extra_hash, max_prefix_tokens, min_prefix_tokens)
        ids = list(token_ids)
        if max_prefix_tokens:
            ids = ids[: max_prefix_tokens + 1]
        length, caches = prefixes.store.find(extra_hash, ids)
        if self.disk is not None:
            floor = max(min_prefix_tokens, length)
            found, more = original(self, token_ids, extra_hash, max_prefix_tokens, floor)
            if found is not None and more > length:
                return found, more
        if length <= min_prefix_tokens:
            return None, 0
        with self.lock:
            self.stats.exact_hits += 1
            self.stats.hits += 1
            self.stats.matched_tokens += length
        return caches, length

    return lookup_exact_cache


def _store(original):
    def store_exact_cache(self, *args, **kwargs):
        return Prefixes.of(self) is None and original(self, *args, **kwargs)

    return store_exact_cache


def _observe(original):
    def observe_cache(self, prompt_cache, token_count, *, batch_size=1):
        # it makes room for what the host keeps, in each step of the prefill; here that is nothing
        if Prefixes.of(self.manager) is None:
            original(self, prompt_cache, token_count, batch_size=batch_size)

    return observe_cache


# Prompts


def _never_split(original):
    def _next_apc_checkpoint_column(self):
        return None if Prefixes.of(self._apc_manager) else original(self)

    return _next_apc_checkpoint_column


def _keep_of_step(original):
    def _store_apc_exact_checkpoints(self):
        if (prefixes := Prefixes.of(self._apc_manager)) is None:
            return original(self)
        for index, meta in enumerate(self._apc_meta):
            if meta is not None:
                now = self._row_real_tokens_processed(index)
                _keep(prefixes, self.uids[index], meta, self.prompt_cache, index, now)

    return _store_apc_exact_checkpoints


def _keep_of_last_step(original):
    def generate(self, *args, **kwargs):
        if (prefixes := Prefixes.of(self._apc_manager)) is None:
            return original(self, *args, **kwargs)
        rows = list(zip(self.uids, self._apc_meta, strict=False))
        made = original(self, *args, **kwargs)
        for index, (uid, meta) in enumerate(rows):
            if meta is not None:
                now = len(meta["full_input_ids"])
                _keep(prefixes, uid, meta, made.prompt_cache, index, now)
        vars(made)["_gemma4_prefixes"] = prefixes
        return made

    return generate


def _keep(
    prefixes: Prefixes, uid: int, meta: dict[str, Any], caches: list[Any], index: int, now: int
) -> None:
    """Keep of one row what is worth while in the step that has ended at ``now`` tokens."""
    text = prefixes.text(uid, meta.get("extra_hash", 0), meta["full_input_ids"])
    before = meta.get("gemma4_kept", meta.get("prefix_len") or 0)
    meta["gemma4_kept"] = now
    if parts := text.parts(before, now):
        prefixes.keep(text, row(caches, index), parts)


# Answers


def _extend(original):
    def extend(self, other):
        if prefixes := vars(other).get("_gemma4_prefixes"):
            vars(self)["_gemma4_prefixes"] = prefixes
        return original(self, other)

    return extend


def _filter(original):
    def filter(self, keep):
        ended = vars(self).get("_gemma4_ended")
        if ended is not None:
            for index, uid in enumerate(self.uids):
                if index not in keep:
                    ended[uid] = row(self.prompt_cache, index)
        return original(self, keep)

    return filter


def _keep_answers(original):
    def next(self):
        prefixes = vars(self).get("_gemma4_prefixes")
        if prefixes is None:
            return original(self)
        ended = vars(self)["_gemma4_ended"] = {}
        try:
            made = original(self)
        finally:
            del vars(self)["_gemma4_ended"]
        for part in made:
            if (text := prefixes.texts.get(part.uid)) is not None:
                text.ids.append(int(part.token))
        for uid, caches in ended.items():
            if (text := prefixes.texts.pop(uid, None)) is not None:
                prefixes.keep(text, caches, [len(text.ids)])
        return made

    return next


# Prompts that begin alike


def _one_by_one(original):
    def _next(self, **kwargs):
        prefixes = Prefixes.of(self.apc_manager)
        if prefixes is None or self._prompt_batch is not None:
            return original(self, **kwargs)
        every = list(self._unprocessed_sequences)
        prefixes.forget_all_but([*self._generation_batch.uids, *(s[0] for s in every)])
        held = hold(self, prefixes)
        try:
            return original(self, **kwargs)
        finally:
            waiting = {sequence[0] for sequence in [*held, *self._unprocessed_sequences]}
            self._unprocessed_sequences = [s for s in every if s[0] in waiting]

    return _next


PATCH = Patch(
    id="mlx_vlm.prefix_reuse",
    targets=(
        *(f"{server}._initialize_model" for server in _SERVERS),
        _INIT,
        _NEXT,
        *(f"{_MANAGER}.{name}" for name in ("lookup_exact_cache", "store_exact_cache")),
        f"{_OBSERVE}(self, prompt_cache, token_count, *, batch_size)",
        f"{_PROMPTS}._next_apc_checkpoint_column",
        f"{_PROMPTS}._store_apc_exact_checkpoints",
        f"{_PROMPTS}.generate",
        *(f"{_ANSWERS}.{name}" for name in ("extend", "filter", "next")),
    ),
    apply=apply,
    probe=probe,
)
