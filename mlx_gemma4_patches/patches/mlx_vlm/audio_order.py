"""Sounds and videos are not where the user put them.

What the user sees: "compare this <sound> with <sound>" is answered as if both came last; a question
about the sound of the first turn is answered as if it were in the last one; a video in a
conversation of several turns ends in an error.

Why: of a request's content the host keeps the text, since 0.7.4 the images in it too. Sounds go
behind the text of the last user's turn and videos before the text of every turn.

The fix: contents remember their parts, and for Gemma 4 the messages have media where the parts
are. What a caller passes beside the messages stays where the host puts it. It can be deleted when
``apply_chat_template`` keeps audio and video parts as it keeps image parts.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ...gemma4 import parts
from ...hosts.mlx_vlm.models import takes_media
from ...patch import Finding, Patch
from ...surgery import Surgery

_MODULE = "mlx_vlm.prompt_utils"
_APPLY = f"{_MODULE}:apply_chat_template"
_TEXT = f"{_MODULE}:extract_text_from_content"
_NORMALIZE = f"{_MODULE}:normalize_image_content"
_TEMPLATE = f"{_MODULE}:get_chat_template"


def probe() -> Finding:
    from mlx_vlm import prompt_utils

    said = [{"type": "text", "text": "one"}, {"type": "audio"}, {"type": "text", "text": "two"}]
    # as the server does
    content = getattr(
        prompt_utils, "normalize_image_content", prompt_utils.extract_text_from_content
    )(said)
    conversation = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "three"},
    ]
    messages = prompt_utils.apply_chat_template(
        None, {"model_type": "gemma4"}, conversation, return_messages=True, num_audios=1
    )
    found = ["-".join(_kinds(message["content"])) for message in messages]
    is_right = found == ["text-audio-text", "text", "text"]
    return Finding(not is_right, f"text, sound and text, then two texts, are {', '.join(found)}")


def _kinds(content: Any) -> list[str]:
    return ["text"] if isinstance(content, str) else [part["type"] for part in content]


class _Text(str):
    """A content's text, which other models want, with its parts."""

    parts: list[dict[str, str]]


class _List(list):
    """A content's texts and images, which other models want, with its parts."""

    parts: list[dict[str, str]]


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TEXT, _with_parts)
    if _NORMALIZE in surgery.targets:
        surgery.wrap(_NORMALIZE, _with_parts)
    surgery.wrap(_APPLY, _in_place(surgery))


def _with_parts(original):
    def content_of(content):
        made = original(content)
        found = parts.plain(content)
        if not parts.counts(found) or type(made) not in (str, list):
            return made
        remembering = _Text(made) if isinstance(made, str) else _List(made)
        remembering.parts = found
        return remembering

    return content_of


def _in_place(surgery: Surgery):
    images_are = _NORMALIZE in surgery.targets

    def make(original):
        def apply_chat_template(
            processor,
            config,
            prompt,
            add_generation_prompt=True,
            return_messages=False,
            num_images=0,
            num_audios=0,
            **kwargs,
        ):
            turns = prompt if isinstance(prompt, list) else [prompt]
            found = [_parts(turn) for turn in turns]
            stated = sum(map(parts.counts, found), Counter())
            videos = _listed(kwargs.get("video"))
            is_right = (
                not stated["audio"]
                and not stated["video"]
                and (images_are or not stated["image"])
                and not (videos and len(turns) > 1)
            )
            if is_right or not takes_media(config):
                return original(
                    processor,
                    config,
                    prompt,
                    add_generation_prompt,
                    return_messages,
                    num_images,
                    num_audios,
                    **kwargs,
                )
            left = Counter(image=num_images, audio=num_audios, video=len(videos))
            found = [parts.limited(some, left) for some in found]
            messages = original(
                processor,
                config,
                [_text_of(turn, some) for turn, some in zip(turns, found, strict=True)],
                add_generation_prompt,
                True,
                left["image"],
                left["audio"],
                **{**kwargs, "video": None},
            )
            for message, some in zip(messages, found, strict=True):
                if parts.counts(some):
                    message["content"] = _replaced(message["content"], some)
            _put_first(messages, videos[len(videos) - left["video"] :])
            if return_messages:
                return messages
            render = surgery.resolve(_TEMPLATE)
            return render(processor, messages, add_generation_prompt, **kwargs)

        return apply_chat_template

    return make


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _role(turn: Any) -> str:
    return (turn.get("role", "user") if isinstance(turn, dict) else turn.role) or "user"


def _content(turn: Any) -> Any:
    return turn.get("content") if isinstance(turn, dict) else turn.content


def _parts(turn: Any) -> list[dict[str, str]]:
    """The parts of a user's turn; none where the host passes the message through."""
    if isinstance(turn, str) or _role(turn) in ("system", "assistant", "tool"):
        return []
    if isinstance(turn, dict) and turn.keys() & {"tool_calls", "tool_call_id"}:
        return []
    content = _content(turn)
    return getattr(content, "parts", None) or parts.plain(content)


def _text_of(turn: Any, found: list[dict[str, str]]) -> Any:
    """A turn without its media, which the host would put elsewhere."""
    if not parts.counts(found):
        return turn
    text = " ".join(part["text"] for part in found if part["type"] == "text")
    return {"role": _role(turn), "content": text}


def _replaced(content: Any, found: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The host's content with ``found`` in place of its text."""
    if isinstance(content, str):
        return found
    made: list[dict[str, Any]] = []
    for part in content:
        made += found if part["type"] == "text" else [part]
    return made


def _put_first(messages: list[dict[str, Any]], videos: list[Any]) -> None:
    """Put videos that no part stands for before the last user's text, as the host does."""
    if not videos:
        return
    last = next(m for m in reversed(messages) if m["role"] not in ("system", "assistant", "tool"))
    content = last["content"]
    if isinstance(content, str):
        content = [{"type": "text", "text": content, "content": content}]
    last["content"] = [{"type": "video", "video": video} for video in videos] + content


PATCH = Patch(
    id="mlx_vlm.audio_order",
    targets=(_APPLY, _TEXT, _NORMALIZE, _TEMPLATE),
    apply=apply,
    probe=probe,
)
