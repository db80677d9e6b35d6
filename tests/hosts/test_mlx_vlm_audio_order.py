"""Media stand in the prompt where the request has them."""

from __future__ import annotations

import importlib

import pytest

from tests.hosts.contract import PatchContract, patched, stock
from tests.hosts.hearing import Hearing, messages, reference, skip_unless_sounds_are_heard
from tests.reference import conversations
from tests.reference.conversations import CONVERSATIONS

pytest.importorskip("mlx_vlm")

ID = "mlx_vlm.audio_order"
GEMMA4, OTHER = {"model_type": "gemma4"}, {"model_type": "qwen2_5_vl"}


def made(config, prompt, **how):
    prompt_utils = importlib.import_module("mlx_vlm.prompt_utils")
    return prompt_utils.apply_chat_template(None, config, prompt, return_messages=True, **how)


def kinds(message) -> list[str]:
    content = message["content"]
    return ["text"] if isinstance(content, str) else [part["type"] for part in content]


class TestAudioOrder(PatchContract):
    id = ID

    def untouched(self):
        prompt_utils = importlib.import_module("mlx_vlm.prompt_utils")
        video = {"video": "a.mp4"}
        return [
            made(GEMMA4, "hear", num_audios=1),
            made(GEMMA4, "see", num_images=2, num_audios=1),
            made(GEMMA4, "see", **video),
            made(GEMMA4, ["one", {"role": "assistant", "content": "a"}, "two"], num_audios=1),
            made(GEMMA4, {"role": "user", "content": "see"}, num_images=1),
            made(OTHER, messages("all"), num_images=2, num_audios=2),
            prompt_utils.extract_text_from_content(messages("all")[0]["content"]),
        ]


@pytest.fixture(scope="module")
def hearing(tmp_path_factory) -> Hearing:
    return Hearing(tmp_path_factory.mktemp("hearing"))


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("through", ["list", "server"])
def test_the_prompt_is_that_of_transformers(hearing, conversation: str, through: str) -> None:
    asked = messages(conversation)
    prompt_utils = importlib.import_module("mlx_vlm.prompt_utils")
    counts = {
        f"num_{kind}s": len(conversations.media(conversation, kind)) for kind in ("image", "audio")
    }
    with patched(ID):
        if through == "server":  # which keeps of a content what these two give it
            normal = getattr(
                prompt_utils, "normalize_image_content", prompt_utils.extract_text_from_content
            )
            asked = [
                {**message, "content": normal(message["content"])}
                if message["role"] == "user"
                else {
                    **message,
                    "content": prompt_utils.extract_text_from_content(message["content"]),
                }
                for message in asked
            ]
        prompt = prompt_utils.apply_chat_template(
            hearing.processor, hearing.model.config, asked, **counts
        )
    assert prompt == conversations.text(conversation)


def test_a_sound_before_the_words_is_answered_as_by_transformers(hearing) -> None:
    skip_unless_sounds_are_heard()
    prompt_utils = importlib.import_module("mlx_vlm.prompt_utils")

    def prompt() -> str:
        return prompt_utils.apply_chat_template(
            hearing.processor, hearing.model.config, messages("sound_first"), num_audios=1
        )

    expected = reference()
    with patched(ID):
        assert hearing.ids("sound_first", prompt()) == expected["ids_sound_first"].tolist()
        assert hearing.greedy("sound_first", prompt()) == expected["greedy_sound_first"].tolist()
    with stock(ID):
        assert hearing.greedy("sound_first", prompt()) != expected["greedy_sound_first"].tolist()


def test_videos_stand_where_they_were_put() -> None:
    said = [
        {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "video_url"}]},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": [{"type": "input_video"}, {"type": "text", "text": "and"}]},
    ]
    with patched(ID):
        messages = made(GEMMA4, said, video=["a.mp4", "b.mp4"])
    assert list(map(kinds, messages)) == [["text", "video"], ["text"], ["video", "text"]]


def test_media_without_a_part_are_where_the_host_puts_them() -> None:
    said = [
        {"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": "one"}]},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "two"},
    ]
    with patched(ID):
        messages = made(GEMMA4, said, num_images=1, num_audios=2, video=["a.mp4"])
    assert list(map(kinds, messages)) == [
        ["audio", "text"],
        ["text"],
        ["video", "image", "text", "audio"],
    ]


def test_a_video_beside_a_conversation_is_in_its_last_turn_alone() -> None:
    said = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "two"},
    ]
    with patched(ID):
        messages = made(GEMMA4, said, video=["a.mp4"])
    assert list(map(kinds, messages)) == [["text"], ["text"], ["video", "text"]]


def test_parts_without_media_are_dropped() -> None:
    said = [{"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": "one"}]}]
    with patched(ID):
        assert list(map(kinds, made(GEMMA4, said))) == [["text"]]


def test_tool_messages_are_passed_through() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    said = [
        {"role": "user", "content": [{"type": "text", "text": "hear"}, {"type": "audio"}]},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "5", "tool_call_id": "1"},
    ]
    with patched(ID):
        messages = made(GEMMA4, said, num_audios=1)
    assert kinds(messages[0]) == ["text", "audio"]
    assert messages[1:] == said[1:]
