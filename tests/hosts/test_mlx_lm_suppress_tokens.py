"""mlx_lm.suppress_tokens: tokens that generation_config.json suppresses are never generated."""

from __future__ import annotations

import importlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.doctor import other_models
from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from tests.hosts import tokenizer
from tests.hosts.contract import PatchContract, equal, patched, stock
from tests.hosts.parity import reference
from tests.hosts.server import serve

pytest.importorskip("mlx_lm.models.gemma4")  # mlx-lm 0.31.1 has none
from mlx_lm import batch_generate, load, stream_generate, utils
from mlx_lm.generate import BatchGenerator
from mlx_lm.sample_utils import make_logits_processors, make_sampler

ID = "mlx_lm.suppress_tokens"
STEPS = 12

generation = importlib.import_module("mlx_lm.generate")  # the package has a function of that name


def suppressing(folder: Path, tokens: Any, shape: str = "dense", **kwargs: Any) -> Path:
    file = tiny.save(shape, folder, **kwargs) / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "suppress_tokens": tokens}))
    return folder


def greedy(model: Any, prompt: list[int], suppressed: list[int]) -> list[int]:
    """What the reference says: suppressed tokens have no chance in any step."""
    caches, following, said = model.make_cache(), prompt, []
    for _ in range(STEPS):
        scores = model(mx.array([following]), cache=caches)[0, -1]
        scores[mx.array(suppressed)] = -mx.inf
        following = [mx.argmax(scores).item()]
        said += following
    return said


class TestSuppressTokens(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _a_place_for_models(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def untouched(self) -> Any:
        silent, _ = utils.load_model(tiny.save("dense", self.folder / "silent"))
        said = reference("dense")["greedy_40"].tolist()
        named, _ = utils.load_model(suppressing(self.folder / "named", said))
        prompt, seen = tiny.prompt(20), []
        for model in (silent, other_models.llama(), text_model("moe")):
            seen += list(generation.generate_step(mx.array(prompt), model, max_tokens=4))
            batch = BatchGenerator(model, max_tokens=4)
            batch.insert([prompt, prompt[:7]])
            seen += [response.token for _ in range(4) for response in batch.next_generated()]
        return [
            *seen,
            named(mx.array([prompt])),
            named(mx.array([prompt]), cache=named.make_cache()),
        ]


@pytest.fixture(autouse=True)
def _patched():
    with patched(ID):
        yield


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    """What the tiny model would say first after some prompts."""
    model = text_model("dense")
    said = {token for n in (8, 40) for token in reference("dense")[f"greedy_{n}"].tolist()}
    return sorted(said | set(greedy(model, tiny.prompt(20), [0])))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokens: list[int]) -> Path:
    made = suppressing(tmp_path_factory.mktemp("suppressing"), tokens)
    tokenizer.save(made)
    return made


@pytest.fixture
def model(folder: Path) -> Any:
    return utils.load_model(folder)[0]


PROMPTS = [tiny.prompt(20), tiny.prompt(8, 11), tiny.prompt(40, 8)]


class TestGreedy:
    """Every way to generate says what the reference says."""

    @pytest.fixture(params=range(len(PROMPTS)))
    def prompt(self, request: pytest.FixtureRequest) -> list[int]:
        return PROMPTS[request.param]

    def test_by_generate_step(self, model: Any, prompt: list[int], tokens: list[int]) -> None:
        expected = greedy(model, prompt, tokens)
        said = [t for t, _ in generation.generate_step(mx.array(prompt), model, max_tokens=STEPS)]
        assert said == expected
        with stock(ID):
            said = [
                t for t, _ in generation.generate_step(mx.array(prompt), model, max_tokens=STEPS)
            ]
            assert said != expected

    def test_by_stream_generate(self, folder: Path, prompt: list[int], tokens: list[int]) -> None:
        model, given = load(str(folder))
        given.eos_token_ids = set()
        said = [r.token for r in stream_generate(model, given, prompt, max_tokens=STEPS)]
        assert said == greedy(model, prompt, tokens)

    def test_with_a_draft_model(self, model: Any, tokens: list[int]) -> None:
        prompt = tiny.prompt(3)  # the window stays open: rewinding past it is another fault
        steps = generation.speculative_generate_step(
            mx.array(prompt), model, model, max_tokens=STEPS
        )
        assert [token for token, *_ in steps] == greedy(model, prompt, tokens)


def test_a_batch_says_what_the_reference_says(folder: Path, model: Any, tokens: list[int]) -> None:
    batch = BatchGenerator(model, max_tokens=STEPS)
    uids = batch.insert(PROMPTS)
    said: dict[int, list[int]] = {uid: [] for uid in uids}
    while responses := batch.next_generated():
        for response in responses:
            said[response.uid].append(response.token)
    assert list(said.values()) == [greedy(model, prompt, tokens) for prompt in PROMPTS]


def test_so_does_batch_generate(folder: Path, tokens: list[int]) -> None:
    model, given = load(str(folder))
    given.eos_token_ids = set()
    texts = batch_generate(model, given, PROMPTS, max_tokens=STEPS).texts
    assert texts == [given.decode(greedy(model, prompt, tokens)) for prompt in PROMPTS]


def test_sampling_never_takes_them(model: Any, tokens: list[int]) -> None:
    mx.random.seed(0)
    sampler = make_sampler(temp=5.0)
    for prompt in PROMPTS:
        steps = generation.generate_step(mx.array(prompt), model, sampler=sampler, max_tokens=40)
        for token, logprobs in steps:
            assert token not in tokens
            assert mx.exp(logprobs).sum().item() == pytest.approx(1, abs=1e-4)
            assert (logprobs[mx.array(tokens)] == -mx.inf).all()


def test_the_callers_processors_come_after(model: Any, tokens: list[int]) -> None:
    seen = []

    def allow_one(_: mx.array, logits: mx.array) -> mx.array:
        seen.append(logits[0, mx.array(tokens)])
        return mx.where(mx.arange(tiny.VOCABULARY) == tokens[0], 0.0, -mx.inf)[None]

    steps = generation.generate_step(
        mx.array(PROMPTS[0]), model, max_tokens=2, logits_processors=[allow_one]
    )
    assert [token for token, _ in steps] == [tokens[0]] * 2
    assert all((values == -mx.inf).all() for values in seen)


def test_a_bias_does_not_bring_them_back(model: Any, tokens: list[int]) -> None:
    processors = make_logits_processors({token: 100.0 for token in tokens})
    steps = generation.generate_step(
        mx.array(PROMPTS[0]), model, max_tokens=STEPS, logits_processors=processors
    )
    assert [token for token, _ in steps] == greedy(model, PROMPTS[0], tokens)


def test_in_a_batch_every_request_keeps_its_own_processors(model: Any, tokens: list[int]) -> None:
    biased = next(i for i in range(110, 490) if i not in tokens)
    own = [make_logits_processors({biased: 100.0}), None, []]
    batch = BatchGenerator(model, max_tokens=STEPS)
    uids = batch.insert(PROMPTS, logits_processors=own)
    said: dict[int, list[int]] = {uid: [] for uid in uids}
    while responses := batch.next_generated():
        for response in responses:
            said[response.uid].append(response.token)
    expected = [greedy(model, prompt, tokens) for prompt in PROMPTS]
    assert list(said.values()) == [[biased] * STEPS, *expected[1:]]


def test_a_batch_for_all_of_whose_requests_the_caller_has_one(model: Any) -> None:
    batch = BatchGenerator(
        model, max_tokens=2, logits_processors=make_logits_processors({7: 100.0})
    )
    batch.insert(PROMPTS[:2])
    assert {r.token for _ in range(2) for r in batch.next_generated()} == {7}


def test_the_logits_keep_their_dtype(tmp_path: Path) -> None:
    model, _ = utils.load_model(suppressing(tmp_path, [5], dtype=mx.bfloat16))
    ((_, logprobs),) = generation.generate_step(mx.array(PROMPTS[1]), model, max_tokens=1)
    assert logprobs.dtype == mx.bfloat16


def test_loaded_in_one_thread_they_are_suppressed_in_another(
    folder: Path, tokens: list[int]
) -> None:
    with ThreadPoolExecutor(1) as loader:
        model, _ = loader.submit(utils.load_model, folder).result()
    expected = greedy(model, PROMPTS[1], tokens)
    steps = generation.generate_step(mx.array(PROMPTS[1]), model, max_tokens=STEPS)
    with ThreadPoolExecutor(1) as generator:
        assert generator.submit(lambda: [token for token, _ in steps]).result() == expected


def test_of_a_model_that_the_host_did_not_load_nothing_is_known() -> None:
    prompt = mx.array(PROMPTS[0])
    said = list(generation.generate_step(prompt, text_model("dense"), max_tokens=STEPS))
    with stock(ID):
        assert equal(
            list(generation.generate_step(prompt, text_model("dense"), max_tokens=STEPS)), said
        )


@pytest.mark.parametrize("request_has", [{}, {"seed": 1}], ids=["in a batch", "alone"])
def test_the_server_says_none(tmp_path: Path, request_has: dict[str, int]) -> None:
    allowed = tokenizer.ids("abc")
    suppressing(tmp_path, [i for i in range(tiny.VOCABULARY) if i not in allowed])
    tokenizer.save(tmp_path)
    with serve("mlx_lm", tmp_path) as post:
        body = {"prompt": "Say it", "max_tokens": STEPS, "temperature": 1.0, **request_has}
        with ThreadPoolExecutor(3) as clients:
            answers = list(clients.map(lambda _: post("/v1/completions", body), range(3)))
    for answer in answers:
        text = answer["choices"][0]["text"]
        assert len(text) == STEPS and set(text) <= set("abc")
