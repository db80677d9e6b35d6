"""A question about ``<|image|>`` ends in an error, or puts an image where there is none.

What the user sees: 500 without a reason for a text that holds the marker beside an image; without
one, a place in the prompt that stands for no image. Whoever writes a text decides what is a marker.

Why: texts of messages are rendered as they are, and the tokenizer takes what they hold for markers.

The fix: for Gemma 4 a marker of media in the text of a message gets a space behind its "<". A
prompt that is a text alone, with no media stated, is left to its caller, who may put markers by
hand. It can be deleted when the host tokenizes texts without their special tokens.
"""

from __future__ import annotations

from ...gemma4.written_markers import escaped
from ...hosts.mlx_vlm.models import takes_media
from ...patch import Finding, Patch
from ...surgery import Surgery

_APPLY = "mlx_vlm.prompt_utils:apply_chat_template"


def probe() -> Finding:
    from mlx_vlm.prompt_utils import apply_chat_template

    said = [{"role": "user", "content": "what is <|image|>"}]
    messages = apply_chat_template(
        None, {"model_type": "gemma4"}, said, return_messages=True, num_images=1
    )
    count = str(messages).count("<|image|>")
    return Finding(count > 0, f"a text with a marker, beside an image, has {count} markers")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_APPLY, _with_texts_as_texts)


def _with_texts_as_texts(original):
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
        is_by_hand = isinstance(prompt, str) and not (
            num_images or num_audios or kwargs.get("video")
        )
        if not is_by_hand and takes_media(config):
            prompt = escaped(prompt)
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

    return apply_chat_template


PATCH = Patch(
    id="mlx_vlm.placeholder_text",
    targets=(f"{_APPLY}(processor, config, prompt, *, num_images, num_audios)",),
    apply=apply,
    probe=probe,
)
