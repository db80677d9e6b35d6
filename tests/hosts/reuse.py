"""How many tokens each turn of a conversation sends through the model, and whether its answer is
that of a fresh run.

``python -m tests.hosts.reuse`` runs the conversations of ``conversations`` on the real servers of
the installed hosts and prints a table: of each turn the tokens that are new in it, and per server
how many it processed. ``--stock`` does so without the patches. The exit code is 1 where a turn
cost more than it should or an answer is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import mlx.core as mx
from tokenizers import Tokenizer

from tests.hosts import conversations, counted
from tests.hosts.server import Server, serve

_CHAT = "/v1/chat/completions"
_END, _CALLED = 106, 50  # <turn|>, and <|tool_response> behind a tool call
SLACK = 4  # tokens that a turn may cost above those that are new in it
_ROUNDING = 2e-3  # in logits


@dataclasses.dataclass(frozen=True)
class Route:
    """A way a host serves."""

    host: str
    arguments: tuple[str, ...] = ()
    body: tuple[tuple[str, Any], ...] = ()
    environ: tuple[tuple[str, str], ...] = ()


ROUTES = {
    "mlx_lm": Route("mlx_lm"),
    "mlx_lm alone": Route("mlx_lm", body=(("seed", 1),)),
    "mlx_lm draft": Route("mlx_lm", ("--draft-model", "{model}")),
    "mlx_vlm": Route("mlx_vlm"),
    "mlx_vlm APC": Route("mlx_vlm", environ=(("APC_ENABLED", "1"),)),
    "vllm_mlx": Route("vllm_mlx", ("--mllm",)),
    "vllm_mlx batched": Route("vllm_mlx", ("--continuous-batching",)),
}


@dataclasses.dataclass
class Turn:
    tag: str
    prompt: list[int]
    processed: int  # tokens of the prompt that went through the model
    new: int  # tokens that no request before it had in common
    wrong: list[str]


class Client:
    """Holds conversations with a server and reads what it noted of them."""

    def __init__(self, folder: Path, shape: str, body: dict[str, Any]):
        self.folder = folder
        self.turns: list[Turn] = []
        self._shape = shape
        self._body = body
        self._seen: list[list[int]] = []
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.post: Server  # the server that runs now

    def ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def ask(
        self,
        tag: str,
        messages: list[dict],
        says: str,
        thought: str = "",
        thinking: bool = False,
        tools: list | None = None,
    ) -> dict[str, Any]:
        """One turn; returns the assistant's message as a client sends it back."""
        opened = messages[-1]["role"] == "tool" and self._opens_thoughts
        text = f"{'' if opened else '<|channel>thought' + chr(10)}{thought}\n<channel|>"
        end = _CALLED if says.endswith("<tool_call|>") else _END
        script = [*self.ids((text if thinking else "") + says), end]
        self._tell(tag, script)
        answer = self.post(_CHAT, self.body(messages, thinking, tools))
        self._score(tag, script, answer["usage"]["prompt_tokens"])
        message = answer["choices"][0]["message"]
        calls = [
            {"id": "c0", "type": "function", "function": {k: f[k] for k in ("name", "arguments")}}
            for f in (call["function"] for call in message.get("tool_calls") or [])
        ]
        made = {"role": "assistant", "content": message.get("content") or ""}
        return {**made, "tool_calls": calls} if calls else made

    def ask_as_claude(
        self, tag: str, messages: list[dict], says: str, system: list[dict]
    ) -> dict[str, Any]:
        """One turn of an Anthropic client, without thoughts; its blocks as they are sent back."""
        script = [*self.ids(says), _CALLED if says.endswith("<tool_call|>") else _END]
        self._tell(tag, script)
        tools = [
            {"name": f["name"], "description": f["description"], "input_schema": f["parameters"]}
            for f in (tool["function"] for tool in conversations.TOOLS)
        ]
        body = {"system": system, "messages": messages, "tools": tools, "max_tokens": 200}
        body |= {"model": str(self.folder), "temperature": 0.0, "thinking": {"type": "disabled"}}
        answer = self.post("/v1/messages", body)
        self._score(tag, script, answer["usage"]["input_tokens"])
        kept = ("type", "text", "id", "name", "input")
        return {
            "content": [
                {key: part[key] for key in kept if part.get(key) is not None}
                for part in answer["content"]
                if part["type"] in ("text", "tool_use")
            ]
        }

    def ask_together(self, tag: str, every: list[list[dict]]) -> None:
        """Ask everything at once; the model says what it would say."""
        self._tell(tag, None)
        with ThreadPoolExecutor(len(every)) as pool:
            bodies = [{**self.body(messages), "max_tokens": 6} for messages in every]
            answers = list(pool.map(lambda body: self.post(_CHAT, body), bodies))
        lines = self._lines(tag)
        prompts = {tuple(self._prompt_ids(line["prompt"])) for line in lines if "prompt" in line}
        prompts = [list(prompt) for prompt in prompts if len(prompt) > 100]
        new = 0
        for prompt in prompts:
            new += self._new(prompt)
        # a decoding step has one token per row; a prompt's own last ones are among them
        processed = sum(c["rows"] * c["length"] for c in lines if c.get("length", 1) > 1)
        said = sorted(answer["choices"][0]["message"]["content"] for answer in answers)
        wanted = sorted(self._tokenizer.decode(_greedy(self._shape, p, 6)).strip() for p in prompts)
        wrong = [f"{s!r}, not {w!r}" for s, w in zip(said, wanted, strict=True) if s.strip() != w]
        self.turns.append(Turn(tag, [i for p in prompts for i in p], processed, new, wrong))

    def body(
        self, messages: list[dict], thinking: bool = False, tools: list | None = None
    ) -> dict[str, Any]:
        made = {
            "model": str(self.folder),
            "messages": messages,
            "max_tokens": 200,
            "temperature": 0.0,
            "enable_thinking": thinking,
            "chat_template_kwargs": {"enable_thinking": thinking},
            **self._body,
        }
        return {**made, "tools": tools} if tools else made

    @property
    def _opens_thoughts(self) -> bool:
        return "set style = 'july'" in (self.folder / "chat_template.jinja").read_text()

    def _tell(self, tag: str, script: list[int] | None) -> None:
        tell(self.folder, tag, script)

    def _lines(self, tag: str) -> list[dict[str, Any]]:
        """What the server noted; it may still be decoding ahead when it has answered."""
        file, before = self.folder / counted.COUNTED, -1
        while (size := file.stat().st_size) != before:
            before = size
            time.sleep(0.1)
        lines = map(json.loads, file.read_text().splitlines())
        return [line for line in lines if line["tag"] == tag]

    def _prompt_ids(self, prompt: str | list[int]) -> list[int]:
        return self.ids(prompt) if isinstance(prompt, str) else prompt

    def _new(self, prompt: list[int], and_then: list[int] | None = None) -> int:
        known = max((_common(prompt, seen) for seen in self._seen), default=0)
        self._seen.append(prompt + (and_then or []))
        return max(1, len(prompt) - known)

    def _score(self, tag: str, script: list[int], length: int) -> None:
        lines = self._lines(tag)
        prompts = [self._prompt_ids(line["prompt"]) for line in lines if "prompt" in line]
        prompt = next((p for p in prompts if len(p) == length), None) or max(prompts, key=len)
        spoken: dict[int, list] = {}
        for line in lines:
            if "forced" in line:
                given = line["given"][-len(line["forced"]) :]
                steps = zip(given, line["forced"], line["own"], strict=True)
                spoken.setdefault(line["model"], []).extend(steps)
        through = sum(line["rows"] * line["length"] for line in lines if "length" in line)
        given_back = sum(_given_back(steps, script) for steps in spoken.values())
        processed = through - given_back
        own = max((_own(steps, script) for steps in spoken.values()), key=len, default=[])
        wrong = _differences(own, _reference(self._shape, prompt, script))
        new = self._new(prompt, script)
        self.turns.append(Turn(tag, prompt, processed // max(1, len(spoken)), new, wrong))


def tell(folder: Path, tag: str, script: list[int] | None) -> None:
    """What the server's model is to say, and what to file it under."""
    file = folder / counted.CONTROL
    unfinished = file.with_suffix(".new")
    unfinished.write_text(json.dumps({"tag": tag, "script": script}))
    unfinished.rename(file)


@contextlib.contextmanager
def client(
    route: Route, folder: Path, shape: str = "e2b", style: str = "july", stock: bool = False
) -> Iterator[Client]:
    """A client of a server that runs until the end of the block."""
    conversations.save(shape, folder, style)
    made = Client(folder, shape, dict(route.body))
    with running(made, route, stock):
        yield made


@contextlib.contextmanager
def running(made: Client, route: Route, stock: bool = False) -> Iterator[None]:
    """Within, a server of ``route`` runs with the client's model."""
    tell(made.folder, "start", None)
    environ = {**dict(route.environ), **({"MLX_GEMMA4_PATCHES": "0"} if stock else {})}
    arguments = [part.format(model=made.folder) for part in route.arguments]
    with (
        mock.patch.dict(os.environ, environ),
        serve(route.host, made.folder, *arguments, program="tests.hosts.counted") as post,
    ):
        made.post = post
        yield


def hold(made: Client, route: Route, stock: bool = False) -> list[Turn]:
    """All conversations but the restart, in turn."""
    conversations.chat(made.ask)
    conversations.tools(made.ask)
    conversations.tools(made.ask, "c", thinking=True)
    conversations.tools(made.ask, "k", thinking=True, keeps=True)
    conversations.two(made.ask)
    conversations.long(made.ask)
    for wave in (1, 2):
        made.ask_together(f"h{wave}", conversations.together(wave))
    return made.turns


def check(turns: list[Turn]) -> None:
    """Fail where a turn cost more than what is new in it, or an answer is not a fresh run's."""
    assert turns
    for turn in turns:
        assert not turn.wrong, turn.tag
        assert turn.processed <= turn.new + SLACK, turn.tag


def _common(left: list[int], right: list[int]) -> int:
    pairs = enumerate(zip(left, right, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(left), len(right)))


def _given_back(steps: list, script: list[int]) -> int:
    """How many tokens of the script a model was given, behind the prompt."""
    at = 0
    for given, _, _ in steps:
        if at < len(script) and given == script[at]:
            at += 1
    return at


def _own(steps: list, script: list[int]) -> list:
    """What a model would have said in place of the script: [(id, logit), ...]."""
    best: list = []
    for start in range(len(steps)):
        found: list = []
        for given, forced, own in steps[start : start + len(script)]:
            at = len(found)
            if forced != script[at] or (at and given != script[at - 1]):
                break
            found.append(own)
        best = max(best, found, key=len)
    return best


def _differences(own: list, reference: list) -> list[str]:
    if len(own) < len(reference):
        return [f"{len(own)} of {len(reference)} tokens of the answer are known"]
    return [
        f"token {i}: {mine} instead of {wanted}"
        for i, (mine, wanted) in enumerate(zip(own, reference, strict=False))
        if mine[0] != wanted[0] or abs(mine[1] - wanted[1]) > _ROUNDING
    ]


def _model(shape: str) -> Any:
    """The model of one shape, of mlx-lm or of mlx-vlm, as (ids, caches) -> logits."""
    if importlib.util.find_spec("mlx_lm.models.gemma4"):
        from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model

        model = text_model(shape)
        return model.make_cache, lambda ids, cache=None: model(ids, cache=cache)
    from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model as multimodal_model

    language = multimodal_model(shape).language_model
    return language.make_cache, lambda ids, cache=None: language(ids, cache=cache).logits


def _reference(shape: str, prompt: list[int], script: list[int]) -> list[tuple[int, float]]:
    """What the model says in place of the script, read in one pass without a cache."""
    logits = _model(shape)[1](mx.array([prompt + script[:-1]]))[0, len(prompt) - 1 :]
    best, top = mx.argmax(logits, -1).tolist(), mx.max(logits, -1).tolist()
    return list(zip(best, top, strict=True))


def _greedy(shape: str, prompt: list[int], count: int) -> list[int]:
    make_cache, model = _model(shape)
    cache, new, made = make_cache(), prompt, []
    for _ in range(count):
        logits = mx.where(mx.array(counted.MUTE), -1e4, model(mx.array([new]), cache)[0, -1])
        new = [mx.argmax(logits).item()]
        made += new
    return made


def main() -> int:
    options = _parser().parse_args()
    names = options.routes or [n for n, r in ROUTES.items() if importlib.util.find_spec(r.host)]
    table: dict[str, dict[str, Turn]] = {}
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "gemma-4-tiny"
            route = ROUTES[name]
            with client(route, folder, options.shape, options.style, options.stock) as made:
                hold(made, route)
            with running(made, route, options.stock):
                made.ask("i1", conversations.restarted(), conversations.words("i", 12))
        table[name] = {turn.tag: turn for turn in made.turns}
    if options.json:
        print(
            json.dumps({n: [dataclasses.asdict(t) for t in r.values()] for n, r in table.items()})
        )
    else:
        _print(table)
    every = [turn for turns in table.values() for turn in turns.values()]
    return int(any(turn.wrong for turn in every))


def _print(table: dict[str, dict[str, Turn]]) -> None:
    print("| turn | prompt | new |", *(f"{name} |" for name in table))
    print("|---|---|---|" + "---|" * len(table))
    for tag, turn in next(iter(table.values())).items():
        cells = [turns[tag] for turns in table.values()]
        shown = [f"{t.processed}{' wrong' if t.wrong else ''} |" for t in cells]
        print(f"| {tag} | {len(turn.prompt)} | {turn.new} |", *shown)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.hosts.reuse", description=__doc__)
    parser.add_argument("routes", nargs="*", help=f"of {', '.join(ROUTES)}; default: all installed")
    parser.add_argument("--shape", default="e2b", choices=("e2b", "moe", "dense"))
    parser.add_argument("--style", default="july", choices=conversations.STYLES)
    parser.add_argument("--stock", action="store_true", help="without the patches")
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser


if __name__ == "__main__":
    sys.exit(main())
