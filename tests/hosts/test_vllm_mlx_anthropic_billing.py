"""A header that changes with every request is no part of the prompt of vllm-mlx 0.2.7."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from tests.hosts.billing import WITH_LINE, WITHOUT_LINE, WORDS
from tests.hosts.contract import PatchContract, patched, stock

ID = "vllm_mlx.anthropic_billing"

pytest.importorskip("vllm_mlx")


def prompt(system):
    """The messages that the model gets."""
    from vllm_mlx.api.anthropic_adapter import anthropic_to_openai
    from vllm_mlx.api.anthropic_models import AnthropicRequest

    request = AnthropicRequest(
        model="m", max_tokens=1, system=system, messages=[{"role": "user", "content": "Hi"}]
    )
    return [(m.role, m.content) for m in anthropic_to_openai(request).messages]


class TestAnthropicBilling(PatchContract):
    id = ID

    def untouched(self):
        return [prompt(system) for system in WITHOUT_LINE]


@pytest.mark.parametrize("system", WITH_LINE)
def test_the_prompt_is_that_without_the_header(system):
    with patched(ID):
        roles = prompt(system)
    assert [(role, text.strip()) for role, text in roles] == prompt(WORDS)


def test_other_models_get_what_was_sent(monkeypatch):
    import vllm_mlx.server  # noqa: F401

    other = SimpleNamespace(tokenizer=SimpleNamespace(convert_tokens_to_ids=lambda token: 3))
    monkeypatch.setattr(sys.modules["vllm_mlx.server"], "_engine", other)
    with patched(ID):
        with_patch = prompt(WITH_LINE[0])
    with stock(ID):
        assert prompt(WITH_LINE[0]) == with_patch
