"""A tiny model that chats, and a client that tells it what to say.

A request carries its script in ``logit_bias``, ids by position, so requests at once do not disturb
each other; ``chat_server`` is the server that reads it.
"""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts import tokenizer

TOOLS = [{"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}]
QUOTE = '<|"|>'

# As Google's of July 2026 in what matters here: arguments must be an object, thinking is asked for
# by <|think|>, and after a tool's result with thinking on the prompt ends in an open thought.
TEMPLATE = """\
{{ bos_token }}{% if enable_thinking | default(false) %}<|turn>system
<|think|><turn|>
{% endif %}{% for message in messages -%}
{% if message.role == 'tool' -%}
<|tool_response>response:f{value:<|"|>{{ message.content }}<|"|>}<tool_response|>
{%- else -%}
<|turn>{{ 'model' if message.role == 'assistant' else message.role }}
{% for call in message.tool_calls or [] -%}
{% if call.function.arguments is not mapping %}{{ raise_exception('not an object') }}{% endif -%}
<|tool_call>call:{{ call.function.name }}{{ '{' }}
{%- for key, value in call.function.arguments | dictsort -%}
{{ key }}:{{ value }}{{ ',' if not loop.last }}
{%- endfor %}}<tool_call|>
{%- endfor -%}
{{ message.content }}{% if not message.tool_calls %}<turn|>
{% endif %}{% endif %}{% endfor %}{% if add_generation_prompt -%}
{% if messages[-1].role != 'tool' %}<|turn>model
{% elif enable_thinking %}<|channel>thought
{% endif %}{% endif %}"""


def call(arguments: str = "", name: str = "f") -> str:
    return f"<|tool_call>call:{name}{{{arguments}}}<tool_call|>"


def save(folder: Path) -> Path:
    """A tiny model that chats; its tokenizer has words for channels, as Gemma 4's does."""
    tiny.save("dense", folder)
    tokenizer.save(folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    for token, word in ((300, "thought"), (301, "response")):
        del content["model"]["vocab"][f"[{token}]"]
        content["model"]["vocab"][word] = token
        no = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        content["added_tokens"].append({"id": token, "content": word, **no})
    file.write_text(json.dumps(content))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


class Chat:
    """A client of a server at a port of 127.0.0.1, with the model of a folder."""

    model = "default_model"

    def __init__(self, port: int, folder: Path):
        self._port = port
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def body(self, says: str, messages: list | None = None, **parameters: Any) -> dict:
        """A request to a model that says a text and ends its turn."""
        ids = self.ids(says + "<turn|>")
        return {
            "model": self.model,
            "messages": messages or [{"role": "user", "content": "hi"}],
            "tools": TOOLS,
            "max_tokens": len(ids),
            **self.scripted(ids),
            **parameters,
        }

    def scripted(self, ids: list[int]) -> dict[str, Any]:
        """What tells the server, in the request, that its model says ``ids``."""
        return {"logit_bias": dict(enumerate(ids))}

    def answer(self, says: str, messages: list | None = None, **parameters: Any) -> dict:
        """Message and ``finish_reason`` of the answer; {"error": ...} where there is none."""
        reply = self.reply(says, messages, **parameters)
        if "error" in reply:
            return reply
        (choice,) = reply["choices"]
        return _plain({**choice["message"], "finish_reason": choice["finish_reason"]})

    def both(self, says: str, messages: list | None = None, **parameters: Any) -> dict:
        """``answer``, which ``stream`` agrees with; a stream has no ``content`` for None."""
        whole = self.answer(says, messages, **parameters)
        streamed = self.stream(says, messages, **parameters)
        assert streamed == {key: value for key, value in whole.items() if value is not None}
        return whole

    def reply(self, says: str, messages: list | None = None, **parameters: Any) -> dict:
        """All of the server's JSON."""
        return self._post(self.body(says, messages, **parameters))

    def stream(self, says: str, messages: list | None = None, **parameters: Any) -> dict:
        """As ``answer``, of a stream's deltas together."""
        reply = self._post(self.body(says, messages, stream=True, **parameters))
        if "error" in reply:
            return reply
        together: dict[str, Any] = {}
        for chunk in reply["chunks"]:
            (choice,) = chunk["choices"]
            for key, value in choice["delta"].items():
                together[key] = value if key == "role" else together.get(key, type(value)()) + value
            together["finish_reason"] = choice["finish_reason"]
        indices = [made.pop("index") for made in together.get("tool_calls", [])]
        assert indices == list(range(len(indices)))
        return _plain(together)

    def post(self, path: str, body: dict) -> str:
        """The text of the answer to a POST of JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(body), headers)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def _post(self, body: dict) -> dict:
        try:
            text = self.post("/v1/chat/completions", body)
        except (http.client.HTTPException, OSError) as error:
            return {"error": repr(error)}
        if not body.get("stream"):
            return json.loads(text) if text else {"error": "an empty body"}
        events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        assert events.pop() == "[DONE]", text
        return {"chunks": [json.loads(event) for event in events]}


def _plain(message: dict) -> dict:
    """Without what differs from answer to answer, and arguments as objects."""
    calls = message.pop("tool_calls", [])
    if calls:
        assert len({made["id"] for made in calls}) == len(calls)
        functions = [made["function"] for made in calls]
        message["calls"] = [{f["name"]: json.loads(f["arguments"])} for f in functions]
    message.pop("role")
    return message
