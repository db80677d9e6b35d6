"""A tokenizer, processor and chat template for the tiny checkpoints.

Gemma 4's special tokens have their real ids, and the media tokens those of the tiny configs. Every
other printable ASCII character is one token, from id 110 on, so that a text and its ids show each
other. Ids without a character are called ``[id]``.
"""

from __future__ import annotations

import json
import string
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from mlx_gemma4_patches.gemma4.tiny import MEDIA_IDS, VOCABULARY

_MEDIA = {
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "image_token": "<|image|>",
    "video_token": "<|video|>",
    "boa_token": "<|audio>",
    "audio_token": "<|audio|>",
    "eoa_token": "<audio|>",
}
SPECIAL = {
    **{0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>"},
    **{46: "<|tool>", 47: "<tool|>", 48: "<|tool_call>", 49: "<tool_call|>"},
    **{50: "<|tool_response>", 51: "<tool_response|>", 52: '<|"|>'},
    **{98: "<|think|>", 100: "<|channel>", 101: "<channel|>", 105: "<|turn>", 106: "<turn|>"},
    **dict(zip(MEDIA_IDS, _MEDIA.values(), strict=True)),
}
_FIRST = 110
_SPACE = "▁"

TEMPLATE = """\
{{ bos_token }}{% for message in messages -%}
<|turn>{{ 'model' if message.role == 'assistant' else message.role }}
{% if message.content is string %}{{ message.content }}{% else -%}
{% for part in message.content %}{{ part.text or '<|' ~ part.type ~ '|>' }}{% endfor %}{% endif -%}
<turn|>
{% endfor %}{% if add_generation_prompt %}<|turn>model
{% endif %}"""


def ids(text: str) -> list[int]:
    """The ids of a text without special tokens."""
    return [_vocabulary()[_SPACE if letter == " " else letter] for letter in text]


def save(folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json, chat_template.jinja, processor_config.json."""
    tokenizer = Tokenizer(
        models.BPE(vocab=_vocabulary(), merges=[], unk_token="<unk>", fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL.values()]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {f"{SPECIAL[i][1:-1]}_token": SPECIAL[i] for i in range(4)} | _MEDIA
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "GemmaTokenizer",
            "processor_class": "Gemma4Processor",
            "clean_up_tokenization_spaces": False,
            "model_max_length": 4096,
            "extra_special_tokens": _MEDIA,
            **named,
        },
    )
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    _write(
        folder / "processor_config.json",
        {
            "processor_class": "Gemma4Processor",
            "image_seq_length": 280,
            "image_processor": {
                "image_processor_type": "Gemma4ImageProcessor",
                "do_convert_rgb": True,
                "do_normalize": False,
                "image_seq_length": 280,
                "max_soft_tokens": 280,
                "patch_size": 16,
                "pooling_kernel_size": 3,
            },
        },
    )


def _vocabulary() -> dict[str, int]:
    letters = [_SPACE, "\n", *string.digits, *string.ascii_letters, *string.punctuation]
    named = {**SPECIAL, **dict(enumerate(letters, _FIRST))}
    return {named.get(i, f"[{i}]"): i for i in range(VOCABULARY)}


def _write(file: Path, content: dict) -> None:
    file.write_text(json.dumps(content, indent=1))
