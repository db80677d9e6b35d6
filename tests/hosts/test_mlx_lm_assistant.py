"""mlx_lm.assistant: with an assistant mlx-lm says what it says alone, in fewer steps."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_gemma4_patches.doctor import other_models
from mlx_gemma4_patches.gemma4 import tiny, tiny_assistant
from tests.hosts import batching, drafting
from tests.hosts.contract import PatchContract, skip_unless_needed
from tests.hosts.drafters import RIGHTNESS
from tests.hosts.drafting import drafted, plain

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")

from mlx_gemma4_patches.hosts.mlx_lm.tiny import assistant, text_model

ID = "mlx_lm.assistant"
REFERENCE = Path(__file__).parents[1] / "reference" / "assistants.json"
KV = {"kv_bits": 8, "kv_group_size": 32, "quantized_kv_start": 0}


class TestAssistant(PatchContract):
    id = ID

    def untouched(self) -> Any:
        model, llama = text_model("dense"), other_models.llama()
        how = {"num_draft_tokens": 2}
        return [
            drafted(model, text_model("e2b"), tiny.prompt(20), 6, **how),
            drafted(llama, llama, tiny.prompt(5), 6, **how),
            plain(model, tiny.prompt(20), 6),
        ]


@pytest.fixture(autouse=True)
def _needed() -> None:
    skip_unless_needed(ID)


def knowing(draft: Any, text: list[int], is_right: Callable[[int], bool]) -> Any:
    """The assistant, which now drafts from a text that it knows."""

    def guess(place: int) -> int:
        right = text[place] if place < len(text) else 0
        return right if is_right(place) else (right + 1) % tiny.MEDIA_IDS.start

    def draft_from_text(
        embed: Any, token: mx.array, hidden: Any, keys_values: Any, position: int, count: int
    ) -> mx.array:
        assert token.item() == text[position]
        return mx.array([guess(position + 1 + i) for i in range(count)])

    draft.draft = draft_from_text
    return draft


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_the_drafts_are_those_of_transformers(shape: str) -> None:
    from mlx_gemma4_patches.hosts.mlx_lm.assisted import Target

    model, draft = text_model(shape), assistant(shape)
    for case in json.loads(REFERENCE.read_text())[shape].values():
        target = Target(model, drafting.caches(model), lambda caches: None)
        target.read(mx.array(case["prompt"]))
        said = draft.draft(
            target.embed,
            mx.array([[case["first"]]]),
            target.last_hidden(),
            target.keys_values(),
            target.length,
            len(case["drafts"]),
        )
        assert said.tolist() == case["drafts"]


@pytest.mark.parametrize(("length", "drafts"), [(1, 2), (15, 1), (17, 7), (50, 3)])
@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_greedy_text_is_that_of_plain_decoding(shape: str, length: int, drafts: int) -> None:
    model, prompt, limit = text_model(shape), tiny.prompt(length), 16
    said = plain(model, prompt, limit + 8)
    how = {"num_draft_tokens": drafts}
    assert drafted(model, assistant(shape), prompt, limit, **how) == said[:limit]
    for rightness, is_right in RIGHTNESS.items():
        draft = knowing(assistant(shape), prompt + said, is_right)
        assert drafted(model, draft, prompt, limit, **how) == said[:limit], rightness


def test_a_prompt_of_many_windows_is_continued_as_alone() -> None:
    model, prompt = text_model("dense"), tiny.prompt(700)
    said = plain(model, prompt, 16)
    draft = knowing(assistant("dense"), prompt + said, RIGHTNESS["right two times of three"])
    assert drafted(model, draft, prompt, 12, num_draft_tokens=3) == said[:12]


@pytest.mark.parametrize("drafts", [1, 3, 7])
def test_an_assistant_that_is_always_right_gives_a_block_a_step(
    drafts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlx_gemma4_patches.hosts.mlx_lm import assisted

    model, prompt = text_model("dense"), tiny.prompt(20)
    said = plain(model, prompt, 32)
    draft = knowing(assistant("dense"), prompt + said, RIGHTNESS["always right"])
    steps, read = [], assisted.Target.read
    monkeypatch.setattr(
        assisted.Target,
        "read",
        lambda self, tokens: steps.append(tokens.size) or read(self, tokens),
    )
    assert drafted(model, draft, prompt, 24, num_draft_tokens=drafts) == said[:24]
    assert len(steps) - 1 == 24 // (drafts + 1)  # less the prompt's


def test_what_is_drafted_is_said_to_be() -> None:
    from mlx_lm.generate import speculative_generate_step

    model, prompt = text_model("dense"), tiny.prompt(20)
    said = plain(model, prompt, 20)
    draft = knowing(assistant("dense"), prompt + said, RIGHTNESS["always right"])
    steps = speculative_generate_step(
        mx.array(prompt), model, draft, max_tokens=8, num_draft_tokens=3
    )
    assert [is_draft for *_, is_draft in steps] == [True, True, True, False] * 2


@pytest.mark.parametrize("limit", range(1, 7))
def test_a_text_may_end_in_the_middle_of_a_block(limit: int) -> None:
    model, prompt = text_model("dense"), tiny.prompt(20)
    said = plain(model, prompt, 20)
    draft = knowing(assistant("dense"), prompt + said, RIGHTNESS["always right"])
    assert drafted(model, draft, prompt, limit, num_draft_tokens=3) == said[:limit]


@pytest.mark.parametrize(("shape", "how"), [("e2b", {}), ("dense", KV)], ids=["e2b", "dense kv"])
@pytest.mark.parametrize("rightness", ["right two times of three", "always right"])
@pytest.mark.parametrize("stop", [2, 5])
def test_a_conversation_goes_on_where_the_caller_ended_it(
    shape: str, how: dict[str, Any], rightness: str, stop: int
) -> None:
    from mlx_lm.generate import speculative_generate_step

    model, first, second = text_model(shape), tiny.prompt(14), tiny.prompt(5, seed=2)
    alone, held = drafting.caches(model), drafting.caches(model)
    said = plain(model, first, 20, **how)
    assert plain(model, first, stop, prompt_cache=alone, **how) == said[:stop]
    expected = plain(model, second, 8, prompt_cache=alone, **how)

    draft = knowing(assistant(shape), first + said, RIGHTNESS[rightness])
    steps = speculative_generate_step(
        mx.array(first), model, draft, num_draft_tokens=3, prompt_cache=held, **how
    )
    assert [next(steps)[0] for _ in range(stop)] == said[:stop]
    steps.close()
    assert {cache.offset for cache in held} == {len(first) + stop}
    got = drafted(model, assistant(shape), second, 8, prompt_cache=held, **how)
    assert got == expected
    assert {cache.offset for cache in held} == {cache.offset for cache in alone}


def test_logprobs_are_those_of_plain_decoding() -> None:
    from mlx_lm.generate import generate_step, speculative_generate_step

    model, prompt = text_model("e2b"), tiny.prompt(20)
    alone = list(generate_step(mx.array(prompt), model, max_tokens=12))
    said = [token for token, _ in alone]
    draft = knowing(assistant("e2b"), prompt + said, RIGHTNESS["right every other time"])
    steps = speculative_generate_step(mx.array(prompt), model, draft, max_tokens=9)
    for (token, logprobs, _), (wanted, expected) in zip(steps, alone, strict=False):
        assert token == wanted
        assert mx.abs(logprobs - expected).max().item() < 1e-3


@pytest.mark.parametrize("processed", [False, True])
def test_with_a_seed_sampled_text_is_that_of_plain_decoding(processed: bool) -> None:
    from mlx_lm.sample_utils import make_logits_processors, make_sampler

    model, prompt = text_model("dense"), tiny.prompt(20)

    def how() -> dict[str, Any]:
        made = {"sampler": make_sampler(temp=1.0, top_p=0.95, top_k=64)}
        if processed:
            made["logits_processors"] = make_logits_processors(
                logit_bias={7: 2.0}, repetition_penalty=1.5, repetition_context_size=30
            )
        return made

    mx.random.seed(3)
    said = plain(model, prompt, 24, **how())
    for rightness in RIGHTNESS.values():
        draft = knowing(assistant("dense"), prompt + said, rightness)
        mx.random.seed(3)
        assert drafted(model, draft, prompt, 20, num_draft_tokens=3, **how()) == said[:20]


def test_logits_processors_see_the_text_that_is_kept_and_nothing_else() -> None:
    model, prompt = text_model("dense"), tiny.prompt(20)
    said = plain(model, prompt, 20)

    def shown(generate: Callable[..., Any], **how: Any) -> list[list[int]]:
        seen = []

        def note(tokens: mx.array, logits: mx.array) -> mx.array:
            seen.append(tokens.tolist())
            return logits

        generate(logits_processors=[note], **how)
        return seen

    alone = shown(lambda **how: plain(model, prompt, 10, **how))
    draft = knowing(assistant("dense"), prompt + said, RIGHTNESS["right two times of three"])
    got = shown(lambda **how: drafted(model, draft, prompt, 10, num_draft_tokens=3, **how))
    assert got == alone[: len(got)]
    assert len(got) == 10


DRAWS = 3_000  # 100 000 take minutes


def test_two_sampled_tokens_have_the_target_s_distribution() -> None:
    """Chi-square of pairs: the first token may be the draft or not, the second follows either."""
    from mlx_gemma4_patches.hosts.mlx_lm import assisted

    logits = mx.array([[0.0, 1.0, -1.0, 0.5], [1.0, 0.0, 0.3, -0.5], [0.0, 0.0, 0.0, 0.0]])
    target = type("Fixed", (), {"read": lambda self, tokens: logits[: tokens.size]})()
    counts = [[0] * 4 for _ in range(4)]
    mx.random.seed(11)
    for _ in range(DRAWS):
        said: list[int] = []
        # row i of the logits is what follows i tokens, whatever they are
        choose = assisted._choose_at_once
        said, _ = choose(target, mx.array([0]), mx.array([1, 0]), mx.random.categorical, None)
        if len(said) < 2:
            probabilities = logits[1:2] - mx.logsumexp(logits[1:2], axis=-1, keepdims=True)
            said.append(mx.random.categorical(probabilities).item())
        counts[said[0]][said[1]] += 1
    first, second = mx.softmax(logits[0]).tolist(), mx.softmax(logits[1]).tolist()
    expected = [[DRAWS * a * b for b in second] for a in first]
    chi = sum(
        (seen - wanted) ** 2 / wanted
        for row, wanted_row in zip(counts, expected, strict=True)
        for seen, wanted in zip(row, wanted_row, strict=True)
    )
    assert chi < 37.7  # 15 degrees of freedom, p = 0.001


@pytest.mark.parametrize("mode", ["affine", "mxfp4"])
def test_quantized_models_say_what_they_say_alone(mode: str) -> None:
    model, draft, prompt = text_model("e2b"), assistant("e2b"), tiny.prompt(20)
    size = {"group_size": 64, "bits": 8} if mode == "affine" else {"group_size": 32, "bits": 4}
    for part in (model, draft):
        nn.quantize(part, **size, mode=mode)
    said = plain(model, prompt, 16)
    assert drafted(model, draft, prompt, 16, num_draft_tokens=3) == said


def test_another_model_s_assistant_is_refused_in_a_line_with_both_sizes() -> None:
    model, draft = text_model("dense"), assistant("dense")
    draft.args.backbone_hidden_size = 2816
    with pytest.raises(ValueError, match=r"2816.*192") as refused:
        drafted(model, draft, tiny.prompt(4), 2)
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="assistant of Gemma 4, and the model is not one"):
        drafted(other_models.llama(), assistant("dense"), tiny.prompt(4), 2)


def test_another_model_s_assistant_is_refused_when_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlx_lm import load

    target = batching.save("dense", tmp_path / "target", batching.PLAIN_TEMPLATE)
    other = tiny_assistant.save("dense", tmp_path / "assistant")
    config = {**tiny_assistant.config("dense"), "backbone_hidden_size": 2816}
    (other / "config.json").write_text(json.dumps(config))
    (other / "model.safetensors").unlink()  # its weights are not looked at
    model, _ = load(str(target))
    with pytest.raises(ValueError, match=r"2816.*192") as refused:
        load(str(other))
    assert "\n" not in str(refused.value)
    assert model is not None  # in use until here
    options = ["--model", str(target), "--draft-model", str(other), "--prompt", "One more word"]
    monkeypatch.setattr(sys, "argv", ["mlx_lm.generate", *options])
    with pytest.raises(ValueError, match=r"2816.*192"):
        runpy.run_module("mlx_lm.generate", run_name="__main__", alter_sys=True)


def test_an_assistant_s_folder_needs_no_tokenizer(tmp_path: Path) -> None:
    from mlx_lm import generate, load

    target = batching.save("e2b", tmp_path / "target", batching.PLAIN_TEMPLATE)
    bare = tiny_assistant.save("e2b", tmp_path / "assistant")
    model, tokenizer = load(str(target))
    draft, its_tokenizer = load(str(bare))
    assert its_tokenizer.vocab_size == tokenizer.vocab_size
    alone = generate(model, tokenizer, "One more word", max_tokens=12)
    said = generate(
        model, tokenizer, "One more word", max_tokens=12, draft_model=draft, num_draft_tokens=3
    )
    assert said == alone
