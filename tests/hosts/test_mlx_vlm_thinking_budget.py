"""A limit on thinking ends the thought of Gemma 4 and nothing else."""

from __future__ import annotations

from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4_patches.gemma4.channels import END, END_ID, OPENING, OPENING_ID, THOUGHT
from tests.hosts.contract import PatchContract, patched, skip_unless_needed
from tests.hosts.mlx_vlm_chat import splits_streams_well

pytest.importorskip("mlx_vlm.models.gemma4")
pytest_plugins = "tests.hosts.mlx_vlm_chat"

ID = "mlx_vlm.thinking_budget"


def tokenizer(own: dict[str, int]) -> SimpleNamespace:
    """Other words come in two pieces, 8 and 7, as <think> does in Gemma 4's."""
    return SimpleNamespace(
        encode=lambda text, add_special_tokens=True: [own[text]] if text in own else [8, 7]
    )


GEMMA4 = tokenizer({OPENING: OPENING_ID, END: END_ID, "\n": 9})
QWEN = tokenizer({"<think>": 3, "</think>": 4, "\n": 9})


def forced(made: Any, said: list[int]) -> list[int | None]:
    return [made(token) for token in said]


class TestThinkingBudget(PatchContract):
    id = ID

    def untouched(self) -> Any:
        """Another model's thoughts, by markers given by place and by name."""
        from mlx_vlm.utils import ThinkingBudgetCriteria

        found = []
        for made in (
            ThinkingBudgetCriteria(QWEN, 2, "</think>", "<think>", True),
            ThinkingBudgetCriteria(QWEN, 2, thinking_start_token="<think>", enable_thinking=False),
            ThinkingBudgetCriteria(
                thinking_start_token="<think>",
                **{"tokenizer": QWEN, "thinking_budget": 0, "enable_thinking": True},
            ),
        ):
            found.append(forced(made, [5, 3, 5, 5, 5, 5, 4, 5, 7, 5]))
            made.reset_thinking_state()
            found.append((made.in_thinking, forced(made, [3, 5, 5, 5])))
        return found


@pytest.fixture
def limited():
    from mlx_vlm.utils import ThinkingBudgetCriteria

    def limited(**how: Any) -> Any:
        return ThinkingBudgetCriteria(
            GEMMA4, 2, **{"thinking_start_token": "<think>", "enable_thinking": True, **how}
        )

    with patched(ID):
        yield limited


@pytest.mark.parametrize(
    "how", [{}, {"thinking_start_token": OPENING, "thinking_end_token": END}], ids=["none", "own"]
)
def test_a_thought_is_ended_and_an_answer_is_not(limited, how):
    thought = [OPENING_ID, 5, 5, 5, 5]
    assert forced(limited(**how), thought) == [None, None, None, 9, END_ID]
    assert forced(limited(**how), [5, 7, 5, 5, 7, 5]) == [None] * 6
    made = limited(**how)
    forced(made, [OPENING_ID, 5, 5, 5, 9, END_ID])
    assert forced(made, [7, 5, 5, 5]) == [None] * 4
    made.reset_thinking_state()
    assert forced(made, [5, 5, 5, 5]) == [None] * 4
    assert forced(made, thought)[-1] == END_ID


def test_the_server_limits_a_thought_that_the_prompt_has_opened(limited):
    generation = pytest.importorskip("mlx_vlm.server.generation")
    server = generation.ResponseGenerator.__new__(generation.ResponseGenerator)
    server.tokenizer = GEMMA4
    arguments = generation.GenerationArguments(enable_thinking=True, thinking_budget=2)
    with patched(ID):
        closed, opened = (
            server._make_thinking_budget_criteria(arguments, mx.array([ids]))
            for ids in ([2, OPENING_ID, 5, END_ID, 7], [2, OPENING_ID, 5, END_ID, 7, OPENING_ID, 5])
        )
        assert forced(closed, [5, 5, 5, 5]) == [None] * 4
        assert forced(opened, [5, 5, 5, 5]) == [None, None, 9, END_ID]
        none = generation.GenerationArguments(enable_thinking=True)
        assert server._make_thinking_budget_criteria(none, mx.array([[2]])) is None


def test_the_servers_thought_ends_and_its_answer_is_whole(mlx_vlm_chat):
    skip_unless_needed(ID)
    if version("mlx-vlm") == "0.5.0":
        pytest.skip("its server takes thinking_budget and limits the thoughts of no model")
    ask = mlx_vlm_chat.both if splits_streams_well() else mlx_vlm_chat.answer
    answer = "yes > no and so on to the end"
    said = f"{THOUGHT}\nwell " + "hm " * 20 + f"{END}{answer}"
    with patched(ID):
        free = ask(said, enable_thinking=True)
        limited = ask(said, enable_thinking=True, thinking_budget=6)
        without = ask(answer, enable_thinking=True, thinking_budget=2)
    assert str(free).count("hm") == 20
    assert str(limited).count("hm") < 6
    assert without["content"] == answer
