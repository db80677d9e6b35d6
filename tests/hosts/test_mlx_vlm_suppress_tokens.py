"""mlx_vlm.suppress_tokens: tokens that generation_config.json suppresses are never generated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.doctor import other_models
from mlx_gemma4_patches.gemma4 import suppressed_tokens, tiny
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import embedded_by_server
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model as tiny_model
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import processor as silent_processor
from mlx_gemma4_patches.patches.mlx_vlm import suppress_tokens
from tests.hosts import tokenizer
from tests.hosts.contract import PatchContract, patched, stock
from tests.hosts.server import serve

pytest.importorskip("mlx_vlm.models.gemma4")
from mlx_vlm import batch_generate, load, stream_generate
from mlx_vlm.utils import load_model

ID = "mlx_vlm.suppress_tokens"
STEPS = 12
PROMPTS = [tiny.prompt(20), tiny.prompt(8, 11), tiny.prompt(40, 8)]


def generation() -> Any:
    return suppress_tokens._module()


def suppressing(folder: Path, tokens: Any) -> Path:
    file = tiny.save("dense", folder) / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": [], "suppress_tokens": tokens}))
    tokenizer.save(folder)
    return folder


def greedy(model: Any, prompt: list[int], suppressed: list[int]) -> list[int]:
    """What the reference says: suppressed tokens have no chance in any step."""
    language_model = model.language_model
    caches, following, said = language_model.make_cache(), prompt, []
    for _ in range(STEPS):
        scores = language_model(mx.array([following]), cache=caches).logits[0, -1]
        scores[mx.array(suppressed)] = -mx.inf
        following = [mx.argmax(scores).item()]
        said += following
    return said


def steps(model: Any, prompt: list[int], **kwargs: Any) -> list[int]:
    made = generation().generate_step(
        mx.array([prompt]), model, None, None, max_tokens=STEPS, temperature=0.0, **kwargs
    )
    return [int(token) for token, *_ in made][:STEPS]


class TestSuppressTokens(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _a_place_for_models(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def untouched(self) -> Any:
        silent = load_model(tiny.save("dense", self.folder / "silent"))
        (self.folder / "named").mkdir(exist_ok=True)
        named = load_model(suppressing(self.folder / "named", [5]))
        other = other_models.gemma3n_vlm()
        prompt = mx.array([PROMPTS[0]])
        return [
            steps(silent, PROMPTS[0]),
            steps(tiny_model("moe"), PROMPTS[1]),
            named.language_model(prompt, cache=named.language_model.make_cache()).logits,
            other(prompt, cache=other.make_cache()).logits,
        ]


@pytest.fixture(autouse=True)
def _patched():
    with patched(ID):
        yield


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    """What the tiny model would say after the prompts."""
    model = tiny_model("dense")
    return sorted({token for prompt in PROMPTS for token in greedy(model, prompt, [0])})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokens: list[int]) -> Path:
    return suppressing(tmp_path_factory.mktemp("suppressing"), tokens)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_alone_it_says_what_the_reference_says(
    folder: Path, tokens: list[int], prompt: list[int]
) -> None:
    model = load_model(folder)
    expected = greedy(model, prompt, tokens)
    assert steps(model, prompt) == expected
    with stock(ID):
        assert steps(model, prompt) != expected


def test_the_callers_processors_are_kept(folder: Path, tokens: list[int]) -> None:
    model, seen = load_model(folder), []

    def allow_one(_: mx.array, logits: mx.array) -> mx.array:
        seen.append(logits[0, mx.array(tokens)])
        return mx.where(mx.arange(tiny.VOCABULARY) == 7, 0.0, -mx.inf)[None]

    assert steps(model, PROMPTS[0], logits_processors=[allow_one]) == [7] * STEPS
    assert all((values == -mx.inf).all() for values in seen)


def test_a_bias_does_not_bring_them_back(folder: Path, tokens: list[int]) -> None:
    model = load_model(folder)
    said = steps(model, PROMPTS[0], logit_bias={token: 100.0 for token in tokens})
    assert said == greedy(model, PROMPTS[0], tokens)


def drafter() -> Any:
    """A model that drafts at random for the tiny one."""
    module = "mlx_vlm.speculative.drafters.gemma4_assistant"
    host = pytest.importorskip(f"{module}.gemma4_assistant")
    config = pytest.importorskip(f"{module}.config").Gemma4AssistantConfig
    text = tiny.config("dense")["text_config"]
    layers = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}
    made = {**text, **layers, "num_kv_shared_layers": 2}
    return host.Gemma4AssistantDraftModel(
        config(backbone_hidden_size=text["hidden_size"], text_config=made)
    )


@pytest.mark.parametrize("prompt", PROMPTS)
def test_with_a_draft_model_it_says_what_the_reference_says(
    folder: Path, tokens: list[int], prompt: list[int]
) -> None:
    how = {"draft_model": drafter(), "draft_kind": "mtp"}
    model = load_model(folder)
    expected = greedy(model, prompt, tokens)
    assert steps(model, prompt, **how) == expected
    with stock(ID):
        assert steps(model, prompt, **how) != expected


def test_streams_and_batches_say_none(tmp_path: Path) -> None:
    allowed = tokenizer.ids("abc")
    others = [i for i in range(tiny.VOCABULARY) if i not in allowed]
    model, processor = load(str(suppressing(tmp_path, others)))
    parts = list(stream_generate(model, processor, "hi", max_tokens=STEPS))
    assert set("".join(part.text for part in parts)) <= set("abc")
    made = batch_generate(
        model, processor, prompts=["hi", "hi there"], max_tokens=STEPS, verbose=False
    )
    for text in made.texts:
        assert len(text) == STEPS and set(text) <= set("abc")
    with stock(ID):
        made = batch_generate(model, processor, prompts=["hi"], max_tokens=STEPS, verbose=False)
    assert not set(made.texts[0]) <= set("abc")


def test_rows_say_what_they_say_alone_and_wait_for_no_token(
    folder: Path, tokens: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(generation(), "GenerationBatch"):
        pytest.skip("this mlx-vlm has no logits processors in batches")
    model, waited = load_model(folder), []
    host_asks = suppressed_tokens.SuppressTokens.__call__
    monkeypatch.setattr(
        suppressed_tokens.SuppressTokens,
        "process_last_token",
        lambda self, last, logits: waited.append(last) or host_asks(self, last, logits),
    )

    def only_seven(_: mx.array, logits: mx.array) -> mx.array:
        return mx.where(mx.arange(tiny.VOCABULARY) == 7, 0.0, -mx.inf)[None]

    generator = generation().BatchGenerator(
        model.language_model, silent_processor(), compute_logprobs=False
    )

    def insert(prompt: list[int], *processors: Any) -> int:
        embedded = embedded_by_server(model, prompt, None)
        own = {"logits_processors": [list(processors)]} if processors else {}
        (uid,) = generator.insert([prompt], STEPS, prompt_kwargs=[embedded], **own)
        return uid

    said: dict[int, list[int]] = {insert(prompt): [] for prompt in PROMPTS}
    wanted = [greedy(model, prompt, tokens) for prompt in PROMPTS]
    while not all(len(answer) > 2 for answer in said.values()):
        for part in generator.next()[1]:
            said[part.uid].append(int(part.token))
    assert not waited
    late = insert(PROMPTS[0], only_seven)
    said[late] = []
    while generator.has_work:
        for part in generator.next()[1]:
            said[part.uid].append(int(part.token))
    assert list(said.values()) == [*wanted, [7] * STEPS]
    assert waited


def test_the_server_says_none(tmp_path: Path) -> None:
    allowed = tokenizer.ids("abc")
    suppressing(tmp_path, [i for i in range(tiny.VOCABULARY) if i not in allowed])
    body = {
        "model": str(tmp_path),
        "messages": [{"role": "user", "content": "Say it"}],
        **{"max_tokens": STEPS, "temperature": 1.0},
    }
    with serve("mlx_vlm", tmp_path) as post:
        answer = post("/v1/chat/completions", body)
    text = answer["choices"][0]["message"]["content"]
    assert text and set(text) <= set("abc")
