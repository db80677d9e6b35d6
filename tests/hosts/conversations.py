"""Conversations whose turns have much in common, and a tokenizer that loses nothing of them.

A text that a server made comes back from its client as the same tokens: a character is one, and so
are the words of markers.
"""

from __future__ import annotations

import base64
import io
import json
import random
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlx_gemma4_patches.gemma4 import tiny_audio
from tests.hosts import batching

Message = dict[str, Any]
Ask = Callable[..., Message]  # tag, messages, what the model says -> the assistant's message

_WORDS = {"thought": 300, "user": 301, "model": 302, "system": 303, "tool": 304}
STYLES = ("april", "may", "july")

# What Google's templates have in common: tools and <|think|> in the system prompt, thoughts of
# turns that are over left out. In what they differ is chosen by STYLE.
_TEMPLATE = """\
{% set style = 'STYLE' %}{% set think = enable_thinking | default(false) -%}
{% set first = messages[0].role == 'system' -%}
{{ bos_token }}{% if think or tools or first %}<|turn>system
{% if think %}<|think|>{% endif %}{% if first %}{% if messages[0].content is string -%}
{{ messages[0].content }}{% else %}{% for part in messages[0].content %}{{ part.text }}{% endfor -%}
{% endif %}{% endif -%}
{% for tool in tools or [] %}<|tool>{{ tool.function | tojson }}<tool|>{% endfor %}<turn|>
{% endif -%}
{% set at = namespace(user=-1, role='', open=false) -%}
{% for message in messages %}{% if message.role == 'user' -%}
{% set at.user = loop.index0 %}{% endif %}{% endfor -%}
{% for message in messages if message.role != 'system' -%}
{% set thought = message.reasoning or message.reasoning_content -%}
{% if message.role == 'tool' -%}
{% if style == 'april' %}<turn|>
<|turn>tool
{{ message.content }}{% else -%}
<|tool_response>response:f{value:<|"|>{{ message.content }}<|"|>}<tool_response|>{% endif -%}
{% else -%}
{% if message.role != 'assistant' or at.role not in ('assistant', 'tool') or style == 'april' -%}
{% if at.open %}<turn|>
{% endif %}<|turn>{{ 'model' if message.role == 'assistant' else message.role }}
{% endif -%}
{% if thought and loop.index0 + first > at.user %}<|channel>thought
{{ thought }}
<channel|>{% endif -%}
{% for call in message.tool_calls or [] -%}
<|tool_call>call:{{ call.function.name }}{{ '{' }}
{%- for key, value in call.function.arguments | dictsort -%}
{{ key }}:{{ value }}{{ ',' if not loop.last }}
{%- endfor %}}<tool_call|>{% endfor -%}
{% if message.content is string or message.content is none %}{{ message.content or '' }}{% else -%}
{% for part in message.content %}{{ part.text or '<|' ~ part.type ~ '|>' }}{% endfor %}{% endif -%}
{% endif %}{% set at.role = message.role %}{% set at.open = true %}{% endfor -%}
{% if add_generation_prompt -%}
{% if at.role != 'tool' or style == 'april' %}<turn|>
<|turn>model
{% if not think and style != 'april' %}<|channel>thought
<channel|>{% endif %}{% elif think and style == 'july' %}<|channel>thought
{% endif %}{% endif %}"""

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "description": "Looks a page up.",
            "parameters": {"type": "object", "properties": {"page": {"type": "integer"}}},
        },
    }
]


def save(shape: str, folder: Path, style: str = "july") -> Path:
    """A tiny checkpoint with a template of the manner of ``STYLES``; E2B's can hear."""
    batching.save(shape, folder, _TEMPLATE.replace("STYLE", style))
    if shape == "e2b":
        tiny_audio.add_to(folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    for word, token in _WORDS.items():
        del content["model"]["vocab"][f"[{token}]"]
        content["model"]["vocab"][word] = token
        no = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        content["added_tokens"].append({"id": token, "content": word, **no})
    file.write_text(json.dumps(content))
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": 8192}))
    return folder


def words(seed: str, length: int) -> str:
    rng, text = random.Random(seed), ""
    while len(text) < length:
        text += "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 8))) + " "
    return text[:length].strip()


def chat(ask: Ask) -> None:
    """a: a chat; e: the last question again; f: the question before it edited."""
    messages = [_message("system", "a", 130)]
    for turn in range(1, 5):
        messages.append(_message("user", f"a u{turn}", 40))
        messages.append(ask(f"a{turn}", messages, words(f"a a{turn}", 14)))
    ask("e1", messages[:-1], words("a a4", 14))
    ask("f1", [*messages[:5], _message("user", "edited", 30)], words("f a", 12))


def tools(ask: Ask, tag: str = "b", thinking: bool = False, keeps: bool = False) -> None:
    """b: a loop of tool calls; c: with thoughts, k: which the client sends back."""
    messages = [_message("system", tag, 110), _message("user", f"{tag} u", 40)]
    for turn in range(1, 5):
        thought = words(f"{tag} t{turn}", 20) if thinking else ""
        call = f"<|tool_call>call:f{{page:{turn}}}<tool_call|>" if turn < 4 else words(tag, 14)
        made = ask(f"{tag}{turn}", messages, call, thought=thought, thinking=thinking, tools=TOOLS)
        if keeps:
            made = {**made, "reasoning": thought}
        messages.append(made)
        if turn < 4:
            result = words(f"{tag} r{turn}", 60)
            messages.append({"role": "tool", "tool_call_id": "c0", "content": result})
    messages.append(_message("user", f"{tag} more", 30))
    thought = "Now what?" if thinking else ""
    ask(f"{tag}5", messages, words("bye", 12), thought=thought, thinking=thinking, tools=TOOLS)


def claude(ask: Ask) -> None:
    """d: tool calls of an Anthropic client, whose system prompt begins otherwise in every turn.

    ``ask`` is asked with the messages and the system prompt of such a client.
    """
    messages: list[Message] = [{"role": "user", "content": [_text(words("d u", 40))]}]
    for turn in range(1, 5):
        billing = f"x-anthropic-billing-header: cc_version=2.1.{turn}; cch={turn * 7919:05x};"
        system = [_text(billing), _text(words("d", 130))]
        call = f"<|tool_call>call:f{{page:{turn}}}<tool_call|>" if turn < 4 else words("d end", 14)
        made = ask(f"d{turn}", messages, call, system=system)
        messages.append({"role": "assistant", "content": made["content"]})
        results = [
            {
                "type": "tool_result",
                "tool_use_id": part["id"],
                "content": words(f"d r{turn}", 60),
            }
            for part in made["content"]
            if part["type"] == "tool_use"
        ]
        messages.append({"role": "user", "content": results})


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def two(ask: Ask) -> None:
    """g: two chats in turn, with one system prompt."""
    chats = {name: [_message("system", "g", 160)] for name in ("gx", "gy")}
    for turn in (1, 2):
        for name, messages in chats.items():
            messages.append(_message("user", f"{name} u{turn}", 30))
            messages.append(ask(f"{name}{turn}", messages, words(f"{name} a{turn}", 12)))


def streamed(ask: Ask, cancel: Callable[[str, list[Message]], None]) -> None:
    """s: a chat whose answers are streamed; between two of them the client hangs up on a third."""
    messages = [_message("system", "s", 130)]
    for turn in (1, 2):
        messages.append(_message("user", f"s u{turn}", 40))
        messages.append(ask(f"s{turn}", messages, words(f"s a{turn}", 14), streams=True))
        cancel(f"s{turn} cancelled", [*messages, _message("user", f"s x{turn}", 50)])


def long(ask: Ask) -> None:
    """l: a chat that is longer than the hosts' steps of 2048 tokens."""
    messages = [_message("system", "l", 300), _message("user", "l u1", 1800)]
    for turn in (1, 2):
        messages.append(ask(f"l{turn}", messages, words(f"l a{turn}", 14)))
        messages.append(_message("user", f"l u{turn + 1}", 60))


def pictures(ask: Ask) -> None:
    """p: a chat about a picture; q: the same words about another picture of that size."""
    for tag, seed in (("p", 0), ("q", 1)):
        messages = [_message("system", "p", 130), batching.message("p u1", batching.image(seed))]
        for turn in range(1, 4 if tag == "p" else 3):
            messages.append(ask(f"{tag}{turn}", messages, words(f"p a{turn}", 14)))
            messages.append(_message("user", f"p u{turn + 1}", 40))


def more_pictures(ask: Ask) -> None:
    """v: a chat of words whose second turn has a picture, and the third another, of other size."""
    messages = [_message("system", "v", 130)]
    for turn in range(1, 4):
        shown = [batching.image(turn, 3, turn)] if turn > 1 else []
        messages.append(batching.message(words(f"v u{turn}", 30), *shown))
        messages.append(ask(f"v{turn}", messages, words(f"v a{turn}", 14)))


def sounds(ask: Ask) -> None:
    """w: a chat about a sound; x: the same words about another sound of that length."""
    for tag, seed in (("w", 0), ("x", 1)):
        part = {"type": "input_audio", "input_audio": {"data": sound(seed), "format": "wav"}}
        text = {"type": "text", "text": "what is it"}
        messages = [_message("system", "w", 130), {"role": "user", "content": [part, text]}]
        for turn in range(1, 4 if tag == "w" else 3):
            messages.append(ask(f"{tag}{turn}", messages, words(f"w a{turn}", 14)))
            messages.append(_message("user", f"w u{turn + 1}", 40))


def sound(seed: int, samples: int = 9000) -> str:
    """Noise, a .wav file in base64."""
    file = io.BytesIO()
    with wave.open(file, "wb") as made:
        made.setparams((1, 2, 16_000, 0, "NONE", ""))
        made.writeframes((tiny_audio.sound(samples, seed) * 32768).astype("<i2").tobytes())
    return base64.b64encode(file.getvalue()).decode()


def together(round: int) -> list[list[Message]]:
    """h: eight conversations that begin at once, with one long system prompt."""
    system = _message("system", "h", 160)
    return [[system, _message("user", f"h {round} {i}", 20 + 2 * i)] for i in range(8)]


def restarted() -> list[Message]:
    """i: the chat of a goes on after the server has been started again."""
    messages = [_message("system", "a", 130)]
    for turn in range(1, 5):
        messages.append(_message("user", f"a u{turn}", 40))
        messages.append({"role": "assistant", "content": words(f"a a{turn}", 14)})
    return [*messages, _message("user", "i", 30)]


def _message(role: str, seed: str, length: int) -> Message:
    return {"role": role, "content": words(seed, length)}
