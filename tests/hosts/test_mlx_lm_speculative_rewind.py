"""A draft model changes the speed, never the words, within the sliding window and past it."""

from __future__ import annotations

import itertools

import mlx.core as mx
import pytest

from mlx_gemma4_patches.doctor import other_models
from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from tests.hosts.contract import PatchContract, patched, stock
from tests.hosts.drafting import caches, drafted, plain

ID = "mlx_lm.speculative_rewind"
LIMIT = 14
LENGTHS = {5: (2, 7, 8), 15: (1, 4), 40: (3, 5, 6)}  # prompt: draft tokens; the window is 16
PAIRS = list(itertools.product(tiny.SHAPES, repeat=2))

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")


class TestSpeculativeRewind(PatchContract):
    id = ID

    def untouched(self):
        models = [text_model("dense"), text_model("moe"), other_models.llama()]
        pairs = [(models[0], models[1]), (models[2], models[2]), (other_models.gemma3n(),) * 2]
        return [drafted(*pair, tiny.prompt(4), 8, num_draft_tokens=3) for pair in pairs]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_the_words_are_those_of_the_model_alone(pair):
    model, draft = map(text_model, pair)
    for length, counts in LENGTHS.items():
        prompt = tiny.prompt(length)
        expected = plain(model, prompt, LIMIT)
        for count in counts:
            with patched(ID):
                given = caches(model, draft) if count % 2 else None
                how = {"num_draft_tokens": count, "prompt_cache": given}
                assert drafted(model, draft, prompt, LIMIT, **how) == expected, (length, how)


def test_a_draft_that_agrees_is_believed_past_the_window():
    from mlx_lm.generate import speculative_generate_step

    model = text_model("dense")
    with patched(ID):
        steps = speculative_generate_step(
            mx.array(tiny.prompt(40)), model, model, max_tokens=20, num_draft_tokens=4
        )
        assert [from_draft for *_, from_draft in steps] == ([True] * 4 + [False]) * 4


def test_a_rejected_draft_leaves_the_drafts_cache_as_if_never_tried():
    from mlx_lm.models.cache import make_prompt_cache

    model, draft = text_model("dense"), text_model("e2b")
    prompt = tiny.prompt(40)
    with patched(ID):
        held = caches(model, draft)
        said = drafted(model, draft, prompt, 9, num_draft_tokens=4, prompt_cache=held)
    own = held[len(caches(model)) :]
    read = own[0].offset
    fresh = make_prompt_cache(draft)
    draft(mx.array([(prompt + said)[:read]]), cache=fresh)
    following = mx.array([[7]])
    moved = mx.abs(draft(following, cache=own) - draft(following, cache=fresh)).max().item()
    assert moved < 1e-4


def test_a_cache_past_the_window_is_taken_up():
    model, draft = text_model("dense"), text_model("moe")
    first, second = tiny.prompt(40), tiny.prompt(6, seed=1)
    with patched(ID):
        held = caches(model, draft)
        for part, cache in ((model, held[:6]), (draft, held[6:])):
            part(mx.array([first]), cache=cache)
        expected = plain(model, first + second, LIMIT)
        assert drafted(model, draft, second, LIMIT, prompt_cache=held) == expected


def test_a_full_window_is_still_not_trimmable_for_anybody_else():
    from mlx_lm.models.cache import can_trim_prompt_cache

    model = text_model("dense")
    with patched(ID):
        held = caches(model, model)
        drafted(model, model, tiny.prompt(40), 6, prompt_cache=held)
        assert not can_trim_prompt_cache(held)


def test_with_sampling_every_token_is_drawn_from_the_models_own_distribution():
    """The function keeps a draft's token only if it is the one that was drawn from these."""
    from mlx_lm.generate import speculative_generate_step

    model, draft = text_model("dense"), text_model("e2b")
    prompt, drawn = tiny.prompt(30), []

    def sampler(logprobs):
        token = mx.random.categorical(logprobs)
        drawn.append((logprobs, token))
        return token

    mx.random.seed(3)
    with patched(ID):
        steps = list(
            speculative_generate_step(
                mx.array(prompt), model, draft, max_tokens=12, num_draft_tokens=2, sampler=sampler
            )
        )
    said = [token for token, *_ in steps]
    logits = model(mx.array([prompt + said]))[0, len(prompt) - 1 : -1]
    own = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    moved = mx.abs(mx.stack([logprobs for _, logprobs, _ in steps]) - own).max().item()
    assert moved < 1e-4
    rows = [(row, t) for p, ts in drawn for row, t in zip(p, ts.reshape(-1).tolist(), strict=True)]
    for token, logprobs, _ in steps:
        assert any(t == token and mx.array_equal(row, logprobs) for row, t in rows)


def test_the_stock_host_says_something_else():
    model, draft = text_model("dense"), text_model("e2b")
    with stock(ID):
        said = drafted(model, draft, tiny.prompt(20), LIMIT)
    assert said != plain(model, tiny.prompt(20), LIMIT)
