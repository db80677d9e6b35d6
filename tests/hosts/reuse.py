"""How many tokens each turn of a conversation sends through the model, and whether its answer is
that of a fresh run.

``python -m tests.hosts.reuse`` runs the conversations of ``conversations`` on the real servers of
the installed hosts and prints a table: of each turn the tokens that are new in it, and per server
how many it processed. ``--quick`` holds those that cost most without reuse, ``--stock`` does
without the patches. The exit code is 1 where a turn processes more than what is new in it and a few
tokens, which is marked with "!", or where an answer is not a fresh run's.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

from tokenizers import Tokenizer

from tests.hosts import checkpoints, conversations, counted, fresh, seeing
from tests.hosts.server import Server, serve

_CHAT = "/v1/chat/completions"
_END, _CALLED = 106, 50  # <turn|>, and <|tool_response> behind a tool call
_TAIL = 64  # of a prompt; some servers render others that end alike, but for the question
_OPENING = 8  # tokens; what all prompts begin with is not worth keeping
SLACK = 4  # tokens that a turn may cost above those that are new in it
_PADDING = 1.5  # of requests that are read together, to the longest
_QUICK = "acd"
_CONVERSATIONS = "abcdghiklpsvw"  # e and f belong to a, q to p, x to w
_MEDIA = "pvw"


@dataclasses.dataclass(frozen=True)
class Route:
    """A way a host serves."""

    host: str
    arguments: tuple[str, ...] = ()
    body: tuple[tuple[str, Any], ...] = ()
    environ: tuple[tuple[str, str], ...] = ()
    text_only: bool = False  # the checkpoint can see and hear nothing
    is_exact: bool = True  # or its answers are those of a quantized KV cache
    leaves_out: str = ""  # conversations that the server does not serve, or forgets


_BATCHED = ("--continuous-batching",)
_ON_DISK = ("--ssd-cache-dir", "{model}-ssd")
_PARSERS = ("--enable-auto-tool-choice", "--tool-call-parser", "gemma4")
_PARSERS += ("--reasoning-parser", "gemma4")

# mlx_lm has no Anthropic endpoint, and its pictures come in where tokens are counted here; vllm-mlx
# without batches takes one request at a time; and after a restart all is new where nothing is on
# disk
ROUTES = {
    "mlx_lm": Route("mlx_lm", leaves_out="dipvw"),
    "mlx_lm alone": Route("mlx_lm", body=(("seed", 1),), leaves_out="dhipvw"),
    "mlx_lm draft": Route("mlx_lm", ("--draft-model", "{model}"), leaves_out="dhipvw"),
    "mlx_vlm": Route("mlx_vlm", leaves_out="i"),
    "mlx_vlm APC": Route("mlx_vlm", environ=(("APC_ENABLED", "1"),)),
    "mlx_vlm kv-bits": Route("mlx_vlm", ("--kv-bits", "8"), is_exact=False, leaves_out="hi"),
    "vllm_mlx": Route("vllm_mlx", _PARSERS, leaves_out="hi"),
    "vllm_mlx mllm": Route("vllm_mlx", ("--mllm", *_PARSERS), leaves_out="hi"),
    "vllm_mlx batched": Route("vllm_mlx", (*_BATCHED, *_PARSERS), leaves_out="i"),
    "vllm_mlx mllm batched": Route("vllm_mlx", ("--mllm", *_BATCHED, *_PARSERS), leaves_out="i"),
    "vllm_mlx text": Route("vllm_mlx", _PARSERS, text_only=True, leaves_out="hi"),
    "vllm_mlx text batched": Route(
        "vllm_mlx", (*_BATCHED, *_PARSERS), text_only=True, leaves_out="i"
    ),
    "vllm_mlx batched SSD": Route("vllm_mlx", (*_BATCHED, *_ON_DISK, *_PARSERS)),
    "vllm_mlx text batched SSD": Route(
        "vllm_mlx", (*_BATCHED, *_ON_DISK, *_PARSERS), text_only=True
    ),
}


@dataclasses.dataclass
class Turn:
    tag: str
    prompt: list[int]
    processed: int  # tokens of the prompt that went through the model
    new: int  # tokens that no request before it had in common
    wrong: list[str]

    @property
    def is_dear(self) -> bool:
        """Whether it cost more than it should."""
        return self.processed > max(self.new + SLACK, self.new * (_PADDING if self.is_many else 1))

    @property
    def is_many(self) -> bool:
        """Whether these are several requests at once."""
        return self.tag.startswith("h")


class Client:
    """Holds conversations with a server and reads what it noted of them."""

    def __init__(self, folder: Path, shape: str, route: Route):
        self.folder = folder
        self.turns: list[Turn] = []
        self._fresh = fresh.Reference(shape)
        self._seeing = functools.cache(lambda: seeing.Reference(folder))
        self._body = dict(route.body)
        self._is_exact = route.is_exact
        self._seen: list[list[int]] = []
        self._changing: list[int] = []  # what an Anthropic client says otherwise in every turn
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
        streams: bool = False,
    ) -> dict[str, Any]:
        """One turn; returns the assistant's message as a client sends it back."""
        opened = messages[-1]["role"] == "tool" and self._opens_thoughts
        text = f"{'' if opened else '<|channel>thought' + chr(10)}{thought}\n<channel|>"
        end = _CALLED if says.endswith("<tool_call|>") else _END
        script = [*self.ids((text if thinking else "") + says), end]
        self._tell(tag, script)
        body = self.body(messages, thinking, tools)
        if streams:
            self._read_stream(body)
            self._score(tag, script)
            return {"role": "assistant", "content": says}
        answer = self.post(_CHAT, body)
        self._score(tag, script, answer["usage"]["prompt_tokens"], seeing.media(messages))
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
        self._changing = self.ids(system[0]["text"])
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

    def cancel(self, tag: str, messages: list[dict]) -> None:
        """Ask, and hang up when the answer begins."""
        self._tell(tag, None)
        with self.post.ask(_CHAT, {**self.body(messages), "stream": True}) as response:
            response.readline()
        self._lines(tag, quiet=2)  # it may notice late

    def _read_stream(self, body: dict[str, Any]) -> None:
        with self.post.ask(_CHAT, {**body, "stream": True}) as response:
            assert response.status == 200, response.read()
            assert b"data: [DONE]" in response.read()

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
        wanted = sorted(self._tokenizer.decode(self._fresh.greedy(p, 6)).strip() for p in prompts)
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

    def steps(self, tag: str) -> list[int]:
        """How many tokens the model was given in each step of a prompt."""
        steps = [line["length"] for line in self._lines(tag) if "length" in line]
        return [length for length in steps if length > 1]  # or it decodes, some hosts ahead

    @property
    def _opens_thoughts(self) -> bool:
        return "set style = 'july'" in (self.folder / "chat_template.jinja").read_text()

    def _tell(self, tag: str, script: list[int] | None) -> None:
        tell(self.folder, tag, script)

    def _lines(self, tag: str, quiet: float = 0.1) -> list[dict[str, Any]]:
        """What the server noted; it may still be decoding ahead when it has answered."""
        file, before = self.folder / counted.COUNTED, -1
        while (size := file.stat().st_size) != before:
            before = size
            time.sleep(quiet)
        lines = map(json.loads, file.read_text().splitlines())
        return [line for line in lines if line["tag"] == tag]

    def _prompt_ids(self, prompt: str | list[int]) -> list[int]:
        return self.ids(prompt) if isinstance(prompt, str) else prompt

    def _new(self, prompt: list[int], and_then: list[int] | None = None) -> int:
        prompt = _without(prompt, self._changing)
        known = max((fresh.common(prompt, seen) for seen in self._seen), default=0)
        known = known if known > _OPENING else 0
        self._seen.append(prompt + (and_then or []))
        return max(1, len(prompt) - known)

    def _score(
        self, tag: str, script: list[int], length: int = 0, shown: seeing.Media | None = None
    ) -> None:
        lines = self._lines(tag)
        prompts = [self._prompt_ids(line["prompt"]) for line in lines if "prompt" in line]
        spoken: dict[int, list] = {}
        read: dict[int, list[int]] = {}
        for line in lines:
            if "forced" in line:
                read.setdefault(line["model"], []).extend(line["given"])
                given = line["given"][-len(line["forced"]) :]
                steps = zip(given, line["forced"], line["own"], strict=True)
                spoken.setdefault(line["model"], []).extend(steps)
        if shown:
            text = next(line["prompt"] for line in reversed(lines) if "prompt" in line)
            seen = self._seeing().prompt(text, shown)
            prompt, reference = seen.ids, self._seeing().says(seen, script)
        else:
            # some servers render more than the prompt, and count it otherwise than they read it
            prompt = max(
                prompts, key=lambda p: (_ended(read.values(), p, script), len(p) == length)
            )
            reference = self._fresh.says(prompt, script)
        through = sum(line["rows"] * line["length"] for line in lines if "length" in line)
        given_back = sum(fresh.given_back(steps, script) for steps in spoken.values())
        processed = through - given_back
        own = max((fresh.own(steps, script) for steps in spoken.values()), key=len, default=[])
        wrong = fresh.differences(own, reference) if self._is_exact else []
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
    if route.text_only:
        checkpoints.change(folder, checkpoints.text_only, checkpoints.text_tensors)
    made = Client(folder, shape, route)
    with running(made, route, stock):
        yield made


@contextlib.contextmanager
def running(made: Client, route: Route, stock: bool = False) -> Iterator[None]:
    """Within, a server of ``route`` runs with the client's model."""
    tell(made.folder, "start", None)
    (made.folder / counted.COUNTED).write_text("")  # nothing of a server before it
    environ = {**dict(route.environ), **({"MLX_GEMMA4_PATCHES": "0"} if stock else {})}
    arguments = [part.format(model=made.folder) for part in route.arguments]
    with (
        mock.patch.dict(os.environ, environ),
        serve(route.host, made.folder, *arguments, program="tests.hosts.counted") as post,
    ):
        made.post = post
        yield


def hold(made: Client, route: Route, letters: str = _CONVERSATIONS) -> list[Turn]:
    """The conversations of these letters that ``route`` serves, but the restart."""
    every = {
        "a": lambda: conversations.chat(made.ask),
        "b": lambda: conversations.tools(made.ask),
        "c": lambda: conversations.tools(made.ask, "c", thinking=True),
        "d": lambda: conversations.claude(made.ask_as_claude),
        "g": lambda: conversations.two(made.ask),
        "h": lambda: [
            made.ask_together(f"h{wave}", conversations.together(wave)) for wave in (1, 2)
        ],
        "k": lambda: conversations.tools(made.ask, "k", thinking=True, keeps=True),
        "l": lambda: conversations.long(made.ask),
        "p": lambda: conversations.pictures(made.ask),
        "s": lambda: conversations.streamed(made.ask, made.cancel),
        "v": lambda: conversations.more_pictures(made.ask),
        "w": lambda: conversations.sounds(made.ask),
    }
    left_out = route.leaves_out
    if route.text_only or not importlib.util.find_spec("mlx_vlm"):
        left_out += _MEDIA
    for letter, talk in every.items():
        if letter in letters and letter not in left_out:
            talk()
    return made.turns


def cold(folder: Path, route: Route) -> dict[str, list[int]]:
    """The steps of prompts that nothing is known of, by what they are longer than."""
    with client(route, folder) as made:
        for name, length in (("nothing", 4), ("the window", 60), ("many windows", 300)):
            text = conversations.words(name, length)
            made.ask(name, [{"role": "user", "content": text}], conversations.words("yes", 12))
        return {turn.tag: made.steps(turn.tag) for turn in made.turns}


def written(folder: Path) -> list[Path]:
    """The files of mlx-vlm's prefix cache, when the thread that writes them is done."""
    files: list[Path] = []
    for _ in range(100):
        before, files = files, sorted(folder.rglob("exact_*.safetensors"))
        if files and files == before:
            return files
        time.sleep(0.5)
    raise AssertionError("nothing was written to the disk")


def check(turns: list[Turn]) -> None:
    """Fail where a turn cost more than what is new in it, or an answer is not a fresh run's."""
    assert turns
    for turn in turns:
        assert not turn.wrong, f"{turn.tag}: {turn.wrong[0]}"
        assert not turn.is_dear, f"{turn.tag}: {turn.processed} processed, {turn.new} new"


def _ended(read: Iterable[list[int]], prompt: list[int], script: list[int]) -> int:
    """With how many last tokens of ``prompt`` what a model read before the script ended."""
    for count in range(min(_TAIL, len(prompt)), 0, -1):
        end = [*prompt[-count:], script[0]]
        for ids in read:
            if any(ids[at : at + len(end)] == end for at in range(len(ids))):
                return count
    return 0


def _without(ids: list[int], part: list[int]) -> list[int]:
    """``ids`` without the first place where ``part`` is in them."""
    for at in range(len(ids) - len(part) + 1 if part else 0):
        if ids[at : at + len(part)] == part:
            return ids[:at] + ids[at + len(part) :]
    return ids


def main() -> int:
    options = _parser().parse_args()
    if unknown := [name for name in options.routes if name not in ROUTES]:
        print(f"no route is named {unknown[0]!r}; there are {', '.join(ROUTES)}", file=sys.stderr)
        return 2
    letters = _QUICK if options.quick else options.only
    names = options.routes or [n for n, r in ROUTES.items() if importlib.util.find_spec(r.host)]
    table: dict[str, dict[str, Turn]] = {}
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "gemma-4-tiny"
            route = ROUTES[name]
            with client(route, folder, options.shape, options.style, options.stock) as made:
                hold(made, route, letters)
            if "i" in letters and (options.stock or "i" not in route.leaves_out):
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
    return int(any(turn.wrong or turn.is_dear for turn in every))


def _print(table: dict[str, dict[str, Turn]]) -> None:
    print("| turn | prompt | new |", *(f"{name} |" for name in table))
    print("|---|---|---|" + "---|" * len(table))
    tags = dict.fromkeys(tag for turns in table.values() for tag in turns)
    for tag in tags:
        cells = [turns.get(tag) for turns in table.values()]
        turn = next(filter(None, cells))
        print(f"| {tag} | {len(turn.prompt)} | {turn.new} |", *(f"{_cell(t)} |" for t in cells))


def _cell(turn: Turn | None) -> str:
    if turn is None:
        return ""
    wrong = f" wrong ({turn.wrong[0]})" if turn.wrong else ""
    return f"{turn.processed}{'!' if turn.is_dear else ''}{wrong}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.hosts.reuse", description=__doc__)
    parser.add_argument("routes", nargs="*", help=f"of {', '.join(ROUTES)}; default: all installed")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--only",
        default=_CONVERSATIONS,
        metavar="LETTERS",
        help="the conversations to hold: a chat, b tools, c tools with thoughts, d Anthropic, g two"
        " in turn, h eight at once, i after a restart, k with thoughts sent back, l long, p a"
        " picture, s streamed, v more pictures, w a sound",
    )
    chosen.add_argument("--quick", action="store_true", help=f"the same as --only {_QUICK}")
    parser.add_argument("--shape", default="e2b", choices=("e2b", "moe", "dense"))
    parser.add_argument("--style", default="july", choices=conversations.STYLES)
    parser.add_argument("--stock", action="store_true", help="without the patches")
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser


if __name__ == "__main__":
    sys.exit(main())
