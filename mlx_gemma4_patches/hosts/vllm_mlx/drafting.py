"""Continuous batching with a drafter, for probes and tests."""

from __future__ import annotations

import inspect
from typing import Any

import mlx.core as mx

from ...patch import NotApplicable
from ..mlx_vlm.drafting import drafter
from ..mlx_vlm.tiny import model
from .batches import generator

INSTALL = "vllm_mlx.mllm_batch_generator:install_mtp_mllm"


def answers(
    shape: str, prompts: list[list[int]], limit: int, draft_model: Any = None, wants: bool = True
) -> tuple[list[list[int]], dict[str, Any]]:
    """What a tiny model says to several prompts at once, and the host's counts of drafts.

    Args:
        draft_model: the tiny assistant of this shape by default.
        wants: whether the requests ask for the drafter.

    Raises NotApplicable where this host takes no drafter there.
    """
    try:
        from vllm_mlx.mllm_batch_generator import MLLMBatchRequest, install_mtp_mllm
    except ImportError:
        raise NotApplicable("this vllm-mlx takes no drafter with continuous batching") from None
    if "draft_model" not in inspect.signature(install_mtp_mllm).parameters:
        raise NotApplicable("this vllm-mlx takes no drafter with continuous batching")
    batches = generator(model(shape), processor=None)
    batches._preprocess_request = lambda request: None  # the ids are there already
    install_mtp_mllm(batches, batches.language_model, draft_model=draft_model or drafter(shape))
    said: dict[int, list[int]] = {}
    try:
        requests = [
            MLLMBatchRequest(uid=0, request_id="", prompt="", max_tokens=limit, temperature=0.0)
            for _ in prompts
        ]
        for request, ids in zip(requests, prompts, strict=True):
            request.input_ids, request.mllm_draft = mx.array([ids]), wants
            request.is_text_only = True
        uids = batches.insert(requests)
        while batches.has_pending():
            for response in batches.next():
                said.setdefault(response.uid, []).append(response.token)
        return [said[uid] for uid in uids], batches.get_mtp_stats()
    finally:
        batches.close()
