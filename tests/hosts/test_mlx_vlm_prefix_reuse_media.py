"""A turn with a new picture or sound costs what is new in it, and none is taken for another."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import (
    embedded_by_server,
    hearing_model,
    model,
    processor,
)
from tests.hosts import conversations, reuse
from tests.hosts.contract import PatchContract, skip_unless_needed
from tests.hosts.pictures import pixels, square, wide

apc = pytest.importorskip("mlx_vlm.apc", reason="no prefix cache in this mlx-vlm")

ID = "mlx_vlm.prefix_reuse_media"
TEXT = [1 + i % 400 for i in tiny.prompt(90)]
PICTURE = [500, *[502] * 4, 501]
WIDE = [500, *[502] * 6, 501]
SOUND = [504, *[505] * 4, 506]
ASKED = [106, 105, 120]
LIMIT = 4  # tokens of an answer


def shown(*pictures: mx.array) -> dict[str, Any]:
    return {"pixel_values": pixels(*pictures)}


def heard(seed: int) -> dict[str, Any]:
    sound = mx.random.normal((1, 16, 128), key=mx.random.key(seed))
    return {"input_features": sound, "input_features_mask": mx.ones((1, 16), mx.bool_)}


_model = functools.cache(model)


class Served:
    """A model behind one prefix cache, or none."""

    def __init__(self, made: Any, manager: Any = None):
        self.made = made
        self.manager = manager

    def __call__(self, *prompts: tuple[list[int], dict[str, Any]]) -> list[list[int]]:
        """What it says to prompts that come at once."""
        generator = importlib.import_module("mlx_vlm.generate").BatchGenerator(
            self.made.language_model,
            processor(),
            apc_manager=self.manager,
            compute_logprobs=False,
        )
        given = [embedded_by_server(self.made, ids, self.manager, **m) for ids, m in prompts]
        ids = [ids for ids, _ in prompts]
        uids = generator.insert(ids, LIMIT, prompt_kwargs=given)
        said: dict[int, list[int]] = {uid: [] for uid in uids}
        while generator.has_work:
            for part in generator.next()[1]:
                said[part.uid].append(int(part.token))
        return [said[uid] for uid in uids]

    def matched(self, *prompts: tuple[list[int], dict[str, Any]]) -> int:
        """How many tokens of them were known; the answers must be those of fresh runs."""
        before = self.manager.stats.matched_tokens
        said = self(*prompts)
        assert said == [Served(self.made)(prompt)[0] for prompt in prompts]
        return self.manager.stats.matched_tokens - before


def served(made: Any) -> Served:
    return Served(made, apc.APCManager(num_blocks=4))


class TestPrefixReuseMedia(PatchContract):
    id = ID

    def untouched(self) -> Any:
        """A chat of words, and the key of another model's prompt."""
        chat, rows = served(model("e2b")), []
        for length in (40, 60):
            rows += chat(([*TEXT[:length], *ASKED], {}), (TEXT[:9], {}))
        key = getattr(apc, "semantic_extra_hash", lambda **what: what)
        other = SimpleNamespace(language_model=None)
        server = importlib.import_module("mlx_vlm.server").ResponseGenerator
        alone = SimpleNamespace(model=chat.made, vision_cache=None)  # as the host's tests have it
        shows = {"input_ids": mx.array([[2, *PICTURE, 5]]), **shown(square(1))}
        given = server._gpu_embed(alone, shows)[1]
        return [rows, chat.manager.stats.matched_tokens, key(image_hash=5, model=other), given]


@pytest.fixture(params=["e2b", "dense"])
def chat(request: pytest.FixtureRequest) -> Served:
    skip_unless_needed(ID)
    return served(_model(request.param))


def test_another_picture_leaves_what_is_before_it_known(chat) -> None:
    first = [2, 105, 110, *TEXT[:40], *PICTURE, *TEXT[40:50], *ASKED]
    second = [*first, 9, 106, 105, 110, *WIDE, *TEXT[50:60], *ASKED]
    third = [*second, 9, 106, 105, 110, *PICTURE, *TEXT[60:70], *ASKED]
    chat.matched((first, shown(square(1))))
    assert chat.matched((second, shown(square(1), wide(2)))) >= len(first) - 1
    assert chat.matched((third, shown(square(1), wide(2), square(3)))) >= len(second) - 1
    assert chat.matched((third, shown(square(1), wide(2), square(4)))) <= len(second) + 4


_CONTENTS = st.lists(
    st.one_of(
        st.tuples(st.just(PICTURE), st.sampled_from([1, 2]).map(square)),
        st.tuples(st.just(WIDE), st.sampled_from([1, 2]).map(wide)),
        st.tuples(st.integers(1, 30).map(lambda count: TEXT[:count]), st.none()),
    ),
    min_size=1,
    max_size=3,
)
_ACTIONS = st.lists(
    st.tuples(st.sampled_from(["go on", "edit", "again", "with others"]), _CONTENTS),
    min_size=2,
    max_size=5,
)


@given(shape=st.sampled_from(["e2b", "dense"]), actions=_ACTIONS)
@settings(max_examples=12, deadline=None)
def test_whatever_is_shown_the_answers_are_those_of_fresh_runs(shape, actions) -> None:
    skip_unless_needed(ID)
    chat, turns = served(_model(shape)), []

    def prompt(turns: list) -> tuple[list[int], dict[str, Any]]:
        ids, pictures = [2], []
        for contents in turns:
            ids += [106, 105, 110, *(token for tokens, _ in contents for token in tokens)]
            pictures += [picture for _, picture in contents if picture is not None]
        return [*ids, *ASKED], shown(*pictures) if pictures else {}

    for action, contents in actions:
        if action == "go on" or not turns:
            turns = [*turns, contents]
        elif action == "edit":
            turns = [*turns[:-1], contents]
        others = [prompt([contents, *turns])] if action == "with others" else []
        chat.matched(prompt(turns), *others)


@pytest.mark.parametrize(
    ("pictures", "known"),
    [
        ((1, 2), True),
        ((2, 1), False),
        ((1, 3), False),
        ((3, 2), False),
    ],
)
def test_a_picture_is_not_taken_for_another(chat, pictures, known) -> None:
    prompt = [2, 105, 110, *TEXT[:6], *PICTURE, *PICTURE, *TEXT[6:30], *ASKED]
    chat.matched((prompt, shown(square(1), square(2))))
    found = chat.matched((prompt, shown(*map(square, pictures))))
    assert (found == len(prompt) - 1) if known else (found <= prompt.index(501))


def test_one_layout_of_pixels_is_not_another(chat) -> None:
    prompt = [2, 105, 110, *WIDE, *TEXT[:30], *ASKED]
    chat.matched((prompt, shown(wide(1))))
    high = wide(1).reshape(3, 144, 96)
    assert chat.matched((prompt, shown(high))) <= prompt.index(502)


def test_prompts_that_come_at_once_begin_alike_up_to_their_pictures(chat) -> None:
    opening = [2, 105, 110, *TEXT]
    prompts = [
        ([*opening, *PICTURE, *TEXT[:20], *ASKED], shown(square(1))),
        ([*opening, *PICTURE, *TEXT[:20], *ASKED], shown(square(2))),
        ([*opening, *TEXT[:20], *ASKED], {}),
    ]
    assert chat.matched(*prompts) >= 2 * (len(opening) - 1)


def test_tenants_know_nothing_of_each_other() -> None:
    skip_unless_needed(ID)
    chat = served(model("dense"))
    ids = [2, 105, 110, *PICTURE, *TEXT[:30], *ASKED]

    def of(tenant: str | None) -> tuple[list[int], dict[str, Any]]:
        return ids, {"tenant": tenant, **shown(square(1))}

    chat.matched(of(None))
    assert chat.matched(of("a")) == 0
    assert chat.matched(of("a")) == len(ids) - 1
    assert chat.matched(of("b")) == 0


def test_a_sound_is_not_taken_for_another() -> None:
    skip_unless_needed(ID)
    chat = served(hearing_model())
    prompt = [2, 105, 110, *TEXT[:20], *SOUND, *TEXT[20:40], *ASKED]
    chat.matched((prompt, heard(1)))
    assert chat.matched((prompt, heard(1))) == len(prompt) - 1
    assert chat.matched((prompt, heard(2))) <= prompt.index(505)
    more = [*prompt, 9, 106, 105, 110, *PICTURE, *ASKED]
    assert chat.matched((more, {**heard(1), **shown(square(1))})) >= len(prompt) - 1


def test_media_that_are_not_told_apart_keep_the_key_of_all(chat) -> None:
    prompt = [2, 105, 110, *TEXT[:20], 500, 502, 501, *TEXT[20:40], *ASKED]
    small = [mx.array(tiny.image(1, 1, seed)) for seed in (1, 2)]
    chat.matched((prompt, shown(small[0])))
    assert chat.matched((prompt, shown(small[1]))) == 0
    assert chat.matched((prompt, shown(small[0]))) == len(prompt) - 1


def test_a_turn_processes_what_is_new_in_it(tmp_path: Path) -> None:
    skip_unless_needed(ID)
    route = reuse.ROUTES["mlx_vlm"]
    with reuse.client(route, tmp_path / "model", "dense") as made:
        reuse.hold(made, route, "v")
    reuse.check(made.turns)


def test_what_was_shown_is_known_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_unless_needed(ID)
    monkeypatch.setenv("APC_DISK_PATH", str(tmp_path / "apc"))
    route = reuse.ROUTES["mlx_vlm APC"]
    with reuse.client(route, tmp_path / "model") as made:
        conversations.more_pictures(made.ask)
        reuse.written(tmp_path / "apc")
    with reuse.running(made, route):
        conversations.more_pictures(made.ask)
    reuse.check(made.turns)
