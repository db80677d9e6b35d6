"""A tiny model that says one of several texts, whichever a conversation asks for.

What it says next depends on the last token alone, so requests at once do not disturb each other,
whatever the host does with them. For that every piece of every text has an id of its own, also
markers, which stand in many texts; they decode to what they are. A conversation asks for a text by
``ask(number)`` in its last message.

As a program, ``python -m tests.hosts.sayings HOST MODEL ARGUMENTS...`` is the host's server with
such a model. It takes the likeliest token whatever a request asks for.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path

import mlx.core as mx

import mlx_gemma4_patches
from mlx_gemma4_patches.gemma4.tiny import VOCABULARY
from tests.hosts import chat, script, server

_FILE = "sayings.json"
_TURN_ID = 106
_PIECE = re.compile(r'<\|?[a-z_]+\|?>|<\|"\|>|[^<]{1,8}|<')
_UNSEEN = "⟦[0-9.]+⟧"  # makes tokens distinct and is not decoded
_ASKED = """\
{% set content = messages[-1].content -%}
{% set asked = content if content is string else content[0].text -%}
{% if '⟦' in asked %}{% set numbers = asked.split('⟦')[1].split('⟧')[0].split('|') -%}
⟦{{ numbers[0 if enable_thinking | default(false) else -1] }}⟧{% endif %}"""


def ask(number: int, not_thinking: int | None = None) -> str:
    """What in the last message asks for the text of a number, or another with thinking off."""
    return f"⟦{number}⟧" if not_thinking is None else f"⟦{number}|{not_thinking}⟧"


def save(folder: Path, texts: list[str]) -> Path:
    """A tiny model that chats as ``chat.save``'s does, and says one of ``texts``."""
    chat.save(folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    free = (token for token in range(200, VOCABULARY) if f"[{token}]" in vocabulary)
    following = [0] * VOCABULARY
    for number, text in enumerate(texts):
        pieces = [f"⟦{number}.{i}⟧{part}" for i, part in enumerate(_PIECE.findall(text))]
        last = None
        for piece in [ask(number), *pieces]:
            token = next(free)
            del vocabulary[f"[{token}]"]
            vocabulary[piece] = token
            no = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
            content["added_tokens"].append({"id": token, "content": piece, **no})
            if last is not None:
                following[last] = token
            last = token
        following[last] = _TURN_ID
    unseen = {"type": "Replace", "pattern": {"Regex": _UNSEEN}, "content": ""}
    content["decoder"]["decoders"].append(unseen)
    file.write_text(json.dumps(content))
    file = folder / "tokenizer_config.json"
    # the class of Gemma's tokenizer has a decoder of its own
    config = {**json.loads(file.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"}
    file.write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(chat.TEMPLATE + _ASKED)
    (folder / _FILE).write_text(json.dumps(following))
    return folder


def _serve(host: str, model: str, *arguments: str) -> None:
    mlx_gemma4_patches.activate()
    server.sample_greedily()
    following = mx.array(json.loads((Path(model) / _FILE).read_bytes()))
    mx.eval(following)  # by the thread that made it
    _let_be_copied()
    with contextlib.ExitStack() as stack:
        for name in script.MODELS[host]:
            stack.enter_context(script.scripted(name, lambda inputs: following[inputs]))
        server.run(host, model, *arguments)


def _let_be_copied() -> None:
    """mlx-vlm 0.5.0 copies a detokenizer, and cannot copy the one for decoders it does not know."""
    from mlx_vlm.tokenizer_utils import NaiveStreamingDetokenizer

    NaiveStreamingDetokenizer.__copy__ = lambda self: type(self)(self._tokenizer)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
