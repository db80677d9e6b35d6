"""A header that changes with every request is no part of the prompt of mlx-vlm."""

from __future__ import annotations

import importlib

import pytest

from tests.hosts.billing import WITH_LINE, WITHOUT_LINE, WORDS
from tests.hosts.contract import PatchContract, patched, stock

ID = "mlx_vlm.anthropic_billing"

pytest.importorskip("mlx_vlm.server.anthropic", reason="no Anthropic endpoint in this mlx-vlm")


def prompt(system):
    """The messages that the model gets."""
    importlib.import_module("mlx_vlm.server")  # tells its endpoints what they need
    from mlx_vlm.server.anthropic import _anthropic_messages_to_internal
    from mlx_vlm.server.schemas import AnthropicRequest

    request = AnthropicRequest(
        model="m", max_tokens=1, system=system, messages=[{"role": "user", "content": "Hi"}]
    )
    return [(m["role"], m["content"]) for m in _anthropic_messages_to_internal(request)[0]]


class TestAnthropicBilling(PatchContract):
    id = ID

    def untouched(self):
        return [prompt(system) for system in WITHOUT_LINE]


@pytest.mark.parametrize("system", WITH_LINE)
def test_the_prompt_is_that_without_the_header(system):
    with patched(ID):
        assert prompt(system) == prompt(WORDS)


def test_other_models_get_what_was_sent(monkeypatch):
    from mlx_vlm.server.runtime import runtime

    monkeypatch.setattr(runtime, "model_cache", {"config": {"model_type": "qwen3_vl"}})
    with patched(ID):
        with_patch = prompt(WITH_LINE[0])
    with stock(ID):
        assert prompt(WITH_LINE[0]) == with_patch
