"""A header that changes with every request is no part of the prompt of mlx-vlm."""

from __future__ import annotations

import importlib

import pytest

from tests.hosts.contract import PatchContract, patched, stock

ID = "mlx_vlm.anthropic_billing"
LINE = "x-anthropic-billing-header: cc_version=2.1; cch=1a2b3;"

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


def blocks(*texts):
    return [{"type": "text", "text": text} for text in texts]


class TestAnthropicBilling(PatchContract):
    id = ID

    def untouched(self):
        systems = (None, "Be nice.", blocks("Be nice.", "", "Now."), f"Say {LINE} twice", [])
        return [prompt(system) for system in systems]


@pytest.mark.parametrize(
    "system",
    [
        f"{LINE}\nBe nice.",
        blocks(LINE, "Be nice."),
        blocks(f"{LINE}\n", "Be nice."),
        blocks(f"{LINE}\nBe nice."),
    ],
)
def test_the_prompt_is_that_without_the_header(system):
    with patched(ID):
        assert prompt(system) == prompt("Be nice.")


def test_other_models_get_what_was_sent(monkeypatch):
    from mlx_vlm.server.runtime import runtime

    monkeypatch.setattr(runtime, "model_cache", {"config": {"model_type": "qwen3_vl"}})
    with patched(ID):
        with_patch = prompt(f"{LINE}\nBe nice.")
    with stock(ID):
        assert prompt(f"{LINE}\nBe nice.") == with_patch
