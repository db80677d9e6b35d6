"""With --mask-prompt mlx-lm learns the answer as the template renders it, behind the prompt."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from mlx_gemma4_patches.gemma4.channels import END, THOUGHT
from mlx_gemma4_patches.hosts.mlx_lm import chat
from tests.hosts import conversations
from tests.hosts.contract import PatchContract, patched, stock

pytest.importorskip("mlx_lm.models.gemma4", reason="mlx-lm 0.31.1 has no Gemma 4")
from mlx_lm import lora
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.datasets import ChatDataset, CompletionsDataset

ID = "mlx_lm.mask_prompt"
OPT_IN = "mlx_lm.enable_thinking"


def template(empty: bool, opened: bool) -> Any:
    """A chat template that does as one of Google's.

    Args:
        empty: who is not to think gets an empty thought before the answer (from May 2026 on).
        opened: who is to think is in a thought behind the result of a tool (July 2026).
    """

    def render(messages, add_generation_prompt, enable_thinking):
        made, before = "<|think|>\n" if enable_thinking else "", None
        for message in messages:
            role = message["role"]
            if role == "tool":
                made += f"[{message['content']}]"
            else:
                if before != "tool":
                    made += f"{'model' if role == 'assistant' else role}\n"
                if message.get("reasoning"):
                    made += f"{THOUGHT}\n{message['reasoning']}\n{END}"
                made += f"{message['content']}.\n" if message["content"] else ""
            before = role
        if not add_generation_prompt:
            return made
        if before == "tool":
            return made + (f"{THOUGHT}\n" if opened and enable_thinking else "")
        return f"{made}model\n" + (f"{THOUGHT}\n{END}" if empty and not enable_thinking else "")

    return render


TEMPLATES = {
    "April": template(empty=False, opened=False),
    "May": template(empty=True, opened=False),
    "July": template(empty=True, opened=True),
}
USER = {"role": "user", "content": "Hi <b>"}
ANSWER = {"role": "assistant", "content": "<b>so"}
THINKS = {**ANSWER, "reasoning": "hm"}
TOOL = [{"role": "assistant", "content": ""}, {"role": "tool", "content": "5"}]
CHATS = {
    "an answer": ([USER, ANSWER], False),
    "a second answer": ([USER, ANSWER, USER, ANSWER], False),
    "an answer of one character": ([USER, {"role": "assistant", "content": "x"}], False),
    "a thought": ([USER, THINKS], True),
    "an answer to a tool": ([USER, *TOOL, ANSWER], False),
    "a thought about a tool": ([USER, *TOOL, THINKS], True),
}


@pytest.fixture(params=TEMPLATES)
def render(request):
    return TEMPLATES[request.param]


def taught(dataset: Any, example: Any) -> tuple[str, str]:
    tokens, offset = dataset.process(example)
    return chat.text(tokens[:offset]), chat.text(tokens[offset:])


def said(message: dict) -> str:
    thought = f"{THOUGHT}\n{message['reasoning']}\n{END}" if "reasoning" in message else ""
    return f"{thought}{message['content']}.\n"


class TestMaskPrompt(PatchContract):
    id = ID

    def untouched(self) -> Any:
        """What is not masked, what ends in no answer, and other models."""
        render = TEMPLATES["May"]
        seen = []
        for gemma4, masked, messages in (
            (True, False, [USER, ANSWER]),
            (True, True, [USER, ANSWER, USER]),
            (False, True, [USER, ANSWER]),
        ):
            dataset = ChatDataset([], chat.tokenizer(gemma4, render), mask_prompt=masked)
            seen.append(dataset.process({"messages": messages}))
        return seen


@pytest.mark.parametrize("name", CHATS)
def test_the_prompt_is_that_of_inference_and_the_answer_is_whole(render, name):
    messages, thinks = CHATS[name]
    tokenizer = chat.tokenizer(template=render)
    with patched(ID):
        dataset = ChatDataset([], tokenizer, mask_prompt=True)
        prompt, answer = taught(dataset, {"messages": messages})
    assert prompt == render(messages[:-1], True, thinks)
    opened = f"{THOUGHT}\n" if prompt.endswith(f"{THOUGHT}\n") else ""
    assert opened + answer == said(messages[-1])


def test_completions_are_taught_as_chats(render):
    with patched(ID):
        dataset = CompletionsDataset([], chat.tokenizer(template=render), "p", "c", True)
        found = taught(dataset, {"p": "Hi", "c": "so"})
    assert found == (render([{"role": "user", "content": "Hi"}], True, False), "so.\n")


def test_without_the_patch_examples_ask_for_thinking_or_lose_their_beginning(render):
    with stock(ID):
        dataset = ChatDataset([], chat.tokenizer(template=render), mask_prompt=True)
        prompt, answer = taught(dataset, {"messages": [USER, ANSWER]})
    assert "<|think|>" in prompt or not answer.startswith("<b>so") or render is TEMPLATES["April"]


class Losses(TrainingCallback):
    def __init__(self):
        self.seen: list[float] = []

    def on_train_loss_report(self, train_info: dict) -> None:
        self.seen.append(train_info["train_loss"])

    def on_val_loss_report(self, val_info: dict) -> None:
        self.seen.append(val_info["val_loss"])


@pytest.fixture
def train(tmp_path, monkeypatch) -> Callable[[str], list[float]]:
    """The losses of mlx_lm.lora --mask-prompt on answers of one letter, with a template's style."""

    def run(style: str) -> list[float]:
        model = conversations.save("dense", tmp_path / "model", style)
        example = json.dumps({"prompt": "Hi", "completion": "x"})
        for part in ("train", "valid"):
            (tmp_path / f"{part}.jsonl").write_text(f"{example}\n{example}\n")
        options = {
            **{"model": model, "data": tmp_path, "adapter-path": tmp_path / "adapters"},
            **{"iters": 2, "batch-size": 2, "num-layers": 1, "steps-per-report": 1},
        }
        said = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        losses = Losses()
        monkeypatch.setattr("sys.argv", ["mlx_lm.lora", "--train", "--mask-prompt", *said])
        monkeypatch.setattr(lora, "get_reporting_callbacks", lambda *_, **__: losses)
        lora.main()
        return losses.seen

    return run


@pytest.mark.parametrize("style", conversations.STYLES)
def test_a_training_on_short_answers_has_a_loss(train, style):
    with patched(ID), stock(OPT_IN):
        by_default = train(style)
    with patched(ID), patched(OPT_IN):
        opted_in = train(style)
    assert opted_in == by_default
    assert len(by_default) == 4  # two steps, and both are evaluated
    assert all(map(math.isfinite, by_default))


def test_without_the_patch_nothing_is_left_of_short_answers_and_the_loss_is_nan(train):
    with stock(ID), patched(OPT_IN):
        assert all(map(math.isnan, train("july")))
