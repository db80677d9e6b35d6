"""After a restart the first turn processes the whole conversation, in spite of --ssd-cache-dir.

What the user sees: with ``--continuous-batching --ssd-cache-dir`` the folder stays empty, and the
first turn after a restart takes as long as the whole conversation.

Why: the host writes what it drops from its memory, and of a Gemma 4 its memory holds nothing that a
later turn could go on from; it reads sliding windows back as full attention, and with ``--mllm``
nothing at all. With ``prefix_reuse`` and ``prefix_reuse_text`` there is nothing to be dropped.

What is added: the places that those keep in memory go to the tier on disk at once, with its thread
and within ``--ssd-cache-max-gb``, and a prompt goes on from there where that saves 64 tokens or
more (``hosts.vllm_mlx.disk``). They are told apart by checkpoint, settings and versions, which the
host's own entries are not; those are not read for a Gemma 4, whose answers they would change. It
can be deleted when the host does so.

Upstream: none known.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

from ...gemma4 import tiny
from ...hosts.mlx_lm.models import is_gemma4
from ...hosts.vllm_mlx import text_steps
from ...hosts.vllm_mlx.batches import scheduler
from ...hosts.vllm_mlx.disk import TieredStore, attach
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_ATTACH = "vllm_mlx.memory_cache:MemoryAwarePrefixCache.set_ssd_tier"
_PROMOTE = "vllm_mlx.scheduler:Scheduler._try_promote_ssd_pending"
_TIER = "vllm_mlx.ssd_cache:SSDCacheTier"
_ASKED = "_gemma4_asked"  # of a request for which the disk has been asked


def probe() -> Finding:
    try:
        import vllm_mlx.models.llm  # which prefix_reuse_text waits for
        import vllm_mlx.ssd_cache  # noqa: F401
    except ImportError:
        raise NotApplicable("this vllm-mlx has no prefix cache on disk") from None
    prompt, read = tiny.prompt(150), 0
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            read = _read_once(prompt, folder)
    return Finding(read > 1, f"of 150 tokens that come again after a restart {read} are processed")


def _read_once(prompt: list[int], folder: str) -> int:
    from vllm_mlx.request import Request, SamplingParams

    made = scheduler(ssd_cache_dir=folder)
    request = Request("0", prompt, SamplingParams(max_tokens=1))
    made.add_request(request)
    made._schedule_waiting()
    while not any(response.finish_reason for response in made.batch_generator.next()[1]):
        pass
    while not made._ssd_tier._spill_queue.empty():  # some releases leave the rest when they close
        time.sleep(0.01)
    made.close_ssd_tier()
    return len(prompt) - request.cached_tokens


def apply(surgery: Surgery) -> None:
    surgery.wrap(_ATTACH, _attaching)
    surgery.wrap(_PROMOTE, _bringing)


def _attaching(original):
    def set_ssd_tier(self, ssd_tier):
        attach(self, ssd_tier)
        return original(self, ssd_tier)

    return set_ssd_tier


def _bringing(original):
    def _try_promote_ssd_pending(self):
        if not is_gemma4(self.model) or not self.waiting:
            return original(self)
        if self.batch_generator is None:  # as the host does next; the store is opened with it
            self._ensure_batch_generator(self.waiting[0].sampling_params)
        store = TieredStore.of(self.memory_aware_cache)
        for request in self.waiting:
            # the host's own way reads sliding windows back as full attention
            if store is not None and _ASKED not in vars(request):
                vars(request)[_ASKED] = True
                _bring(self, store, request)
        return None

    return _try_promote_ssd_pending


def _bring(scheduler: Any, store: TieredStore, request: Any) -> None:
    ids = request.prompt_token_ids
    if store.bring(text_steps.MODEL_KEY, ids):
        request.prompt_cache, request.remaining_tokens = scheduler.memory_aware_cache.fetch(ids)
        request.cached_tokens = len(ids) - len(request.remaining_tokens)
        request.cache_hit_type = "ssd_hit"


PATCH = Patch(
    id="vllm_mlx.prefix_reuse_disk",
    targets=(
        f"{_ATTACH}(self, ssd_tier)",
        _PROMOTE,
        # these are called
        f"{_TIER}.enqueue_spill(self, tokens, cache, memory_bytes)",
        f"{_TIER}.lookup_ssd(self, tokens)",
        f"{_TIER}.lookup_ssd_prefix(self, tokens)",
        f"{_TIER}._read_entry(self, tokens, relative_path)",
        f"{_TIER}._quarantine_entry(self, tokens, relative_path)",
    ),
    apply=apply,
    probe=probe,
)
