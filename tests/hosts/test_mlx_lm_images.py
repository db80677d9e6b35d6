"""Pictures and sounds through mlx-lm's text model, against transformers."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.gemma4.embedded import Embedded, embed
from mlx_gemma4_patches.gemma4.placeholders import Placeholders
from mlx_gemma4_patches.hosts.mlx_lm import media
from mlx_gemma4_patches.hosts.mlx_lm.tiny import assistant, text_model
from tests.hosts.contract import PatchContract, patched
from tests.hosts.parity import TOLERANCE, distance, reference
from tests.hosts.pictures import PROMPTS

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")

PLACEHOLDERS = Placeholders(502, 503, 505)


class TestImages(PatchContract):
    id = "mlx_lm.images"

    def untouched(self) -> Any:
        made = []
        for shape in tiny.SHAPES:
            model, ids = text_model(shape), reference(shape)["ids_40"]
            rows = model.language_model.model.embed_tokens(ids)
            made += [model(ids[None]), model(ids[None], input_embeddings=rows[None])]
            made.append(_greedy(ids, model, 6, prefill_step_size=16))
            made.append(_greedy(ids, model, 6, prefill_step_size=16, input_embeddings=rows))
        return made


def _greedy(ids: mx.array, model: Any, count: int, **how: Any) -> list[int]:
    generate = importlib.import_module("mlx_lm.generate")  # also the name of a function there
    return [int(token) for token, _ in generate.generate_step(ids, model, max_tokens=count, **how)]


class Pictured:
    """mlx-lm's model of a shape, and its prompts with transformers' soft tokens."""

    def __init__(self, shape: str):
        self.expected = reference(shape)
        self.model = text_model(shape)
        self._is_whole = tiny.config(shape)["text_config"]["use_bidirectional_attention"]

    def embedded(self, prompt: str, dtype: mx.Dtype = mx.float32) -> tuple[mx.array, Embedded]:
        ids = self.expected[f"ids_{prompt}"]
        soft = {502: [self.expected["features_images"].astype(dtype)]}
        table = self.model.language_model.model.embed_tokens
        return ids, embed(ids, table, soft, self._is_whole == "vision", PLACEHOLDERS)


@pytest.fixture(params=tiny.SHAPES)
def seeing(request: pytest.FixtureRequest) -> Pictured:
    with patched("mlx_lm.images"):
        return Pictured(request.param)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_an_image_prompt_has_the_logits_of_transformers(seeing: Pictured, prompt: str) -> None:
    ids, embedded = seeing.embedded(prompt)
    expected = seeing.expected[f"logits_{prompt}"]
    for cache in (None, seeing.model.make_cache()):
        made = seeing.model(ids[None], cache=cache, input_embeddings=embedded[None])[0]
        assert distance(made[-len(expected) :], expected) < TOLERANCE


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_tokens_after_short_steps_are_those_of_transformers(
    seeing: Pictured, prompt: str
) -> None:
    ids, embedded = seeing.embedded(prompt)
    expected = seeing.expected[f"greedy_{prompt}"].tolist()
    progress = []
    made = _greedy(
        ids,
        seeing.model,
        len(expected),
        input_embeddings=embedded,
        prefill_step_size=8,
        prompt_progress_callback=lambda *told: progress.append(told),
    )
    assert made == expected
    assert progress[0] == (0, len(ids)) and progress[-1] == (len(ids), len(ids))
    assert progress == sorted(progress)


def test_no_step_splits_an_image(seeing: Pictured) -> None:
    _, embedded = seeing.embedded("images")  # they are 7..18 and 31..54
    images = [(7, 19), (31, 55)] if embedded.whole.any().item() else []
    for step in range(1, 70):
        stops = embedded.stops(step)
        assert stops[-1] == len(embedded) - 1 and stops == sorted(set(stops))
        assert not any(begin < stop < end for stop in stops for begin, end in images)
        sizes = [stop - start for start, stop in zip([0, *stops], stops, strict=False)]
        assert max(sizes) <= max([step, *(end - begin for begin, end in images)])


def test_what_processors_of_logits_see_is_the_whole_prompt() -> None:
    seeing, seen = Pictured("e2b"), []
    ids, embedded = seeing.embedded("images")
    processors = [lambda tokens, logits: seen.append(tokens.tolist()) or logits]
    made = _greedy(ids, seeing.model, 3, input_embeddings=embedded, logits_processors=processors)
    assert seen[:3] == [ids.tolist() + made[:n] for n in range(3)]


def test_soft_tokens_stay_as_they_are_in_bfloat16() -> None:
    seeing = Pictured("e2b")
    seeing.model.set_dtype(mx.bfloat16)
    ids, embedded = seeing.embedded("images", mx.bfloat16)
    text = seeing.model.language_model.model
    text.layers, text.norm = [], lambda h: h
    made = text(ids[None], input_embeddings=embedded[None])[0]
    table = text.embed_tokens(ids) * text.embed_scale
    features, at = seeing.expected["features_images"].astype(mx.bfloat16), 0
    for row, token in enumerate(ids.tolist()):
        expected = features[at] if token == 502 else table[row]
        at += token == 502
        assert mx.array_equal(made[row], expected)


def test_a_picture_and_texts_in_one_batch_are_as_alone(seeing: Pictured) -> None:
    generate = importlib.import_module("mlx_lm.generate")
    ids, embedded = seeing.embedded("images")
    text = seeing.expected["ids_40"].tolist()
    generator = generate.BatchGenerator(seeing.model, max_tokens=16, stop_tokens=[])
    caches = [media.read(seeing.model, ids, embedded, step=16), seeing.model.make_cache()]
    *before, last = ids.tolist()
    uids = generator.insert([[last], text], caches=caches, all_tokens=[before, []])
    made = {uid: [] for uid in uids}
    while min(map(len, made.values())) < 16:
        responses = generator.next()
        for response in responses[1] if isinstance(responses, tuple) else responses:
            made[response.uid].append(response.token)
    for uid, name in zip(uids, ("images", "40"), strict=True):
        assert made[uid][:16] == seeing.expected[f"greedy_{name}"].tolist()[:16]


def test_without_room_for_its_soft_tokens_a_prompt_is_refused() -> None:
    seeing = Pictured("dense")
    ids, table = seeing.expected["ids_images"], seeing.model.language_model.model.embed_tokens
    rows = seeing.expected["features_images"]
    with pytest.raises(ValueError, match="36 placeholders for 35 soft tokens"):
        embed(ids, table, {502: [rows[1:]]}, True, PLACEHOLDERS)
    with pytest.raises(ValueError, match="ends in a picture"):
        embed(mx.array([120, 502]), table, {502: [rows[:1]]}, True, PLACEHOLDERS)


# With mlx-vlm: a checkpoint that hears and sees, asked what transformers was asked


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mlx_vlm")
    from tests.hosts import hearing

    return hearing.save(tmp_path_factory.mktemp("gemma-4"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer."""
    from mlx_lm.utils import load

    return load(str(folder))


def _prepared(model: Any, folder: Path, conversation: str) -> tuple[mx.array, Embedded, list[int]]:
    """A conversation, and what transformers says to it."""
    from tests.hosts import hearing
    from tests.reference import conversations

    images, audio = (
        [str(folder / f"{name}.{end}") for name in conversations.media(conversation, kind)]
        for kind, end in (("image", "png"), ("audio", "wav"))
    )
    ids, embedded = media.prepare(model, conversations.text(conversation), images, audio)
    expected = hearing.reference()
    assert ids.tolist() == expected[f"ids_{conversation}"].tolist()
    return ids, embedded, expected[f"greedy_{conversation}"].tolist()


@pytest.mark.parametrize("conversation", ["picture", "all", "sounds_apart"])
def test_media_are_those_of_transformers(
    loaded: tuple[Any, Any], folder: Path, conversation: str
) -> None:
    ids, embedded, greedy = _prepared(loaded[0], folder, conversation)
    assert _greedy(ids, loaded[0], len(greedy), input_embeddings=embedded) == greedy


@pytest.mark.parametrize("draft", [text_model, assistant])
def test_a_draft_model_changes_no_token(
    loaded: tuple[Any, Any], folder: Path, draft: Callable[[str], Any]
) -> None:
    generate = importlib.import_module("mlx_lm.generate")
    ids, embedded, greedy = _prepared(loaded[0], folder, "picture")
    how = {"input_embeddings": embedded, "max_tokens": len(greedy), "prefill_step_size": 64}
    said = list(generate.stream_generate(*loaded, ids, draft_model=draft("e2b"), **how))
    assert [response.token for response in said] == greedy
    if draft is text_model:  # it has no picture, and guesses some of the words
        assert any(response.from_draft for response in said)


def test_the_towers_hold_no_text_model(loaded: tuple[Any, Any]) -> None:
    parameters = tree_flatten(loaded[0].parameters())
    assert 0 < media.Towers.of(loaded[0]).nbytes < sum(value.nbytes for _, value in parameters)
    assert not any("tower" in name for name, _ in parameters)


def test_what_cannot_be_read_is_named(loaded: tuple[Any, Any], folder: Path) -> None:
    with pytest.raises(media.MediaError, match=re.escape("1 <|image|> for 0")):
        media.prepare(loaded[0], "<bos>see <|image|> this")
    broken = folder / "broken.png"
    broken.write_bytes(b"no picture")
    for file in (broken, folder / "missing.png"):
        with pytest.raises(media.MediaError, match="cannot be read"):
            media.prepare(loaded[0], "<bos>see <|image|> this", [str(file)])
