"""vllm-mlx's real server answers what Gemma 4 says, to real OpenAI and Anthropic clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any, NamedTuple

import pytest
from packaging.version import Version

from mlx_gemma4_patches.gemma4.channels import END, RESPONSE, THOUGHT
from mlx_gemma4_patches.gemma4.tool_calls import END as CALL_END
from mlx_gemma4_patches.gemma4.tool_calls import START
from tests.hosts import sayings, server
from tests.hosts.chat import QUOTE, call

pytest.importorskip("vllm_mlx")
pytest.importorskip(
    "vllm_mlx.reasoning.gemma4_parser", reason="no parser for Gemma 4 in this vllm-mlx"
)
openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")


# What a release cannot do, patched or not. All others are held to all that is asked here.
RELEASE = Version(version("vllm-mlx")).release
SHOWS_THOUGHTS_OF_CALLS = RELEASE == (0, 2, 8)  # in whole answers, with their markup
SHOWS_MARKERS_OF_CALLS = RELEASE < (0, 4)  # that cannot be read, in whole answers
ENDS_TWICE = RELEASE < (0, 5)  # a stream of OpenAI's where a call lacks its end
LOSES_CUT_CALLS = RELEASE < (0, 5)  # a stream
HAS_NO_CALLS_IN_TEMPLATES = RELEASE < (0, 4)
HAS_NO_THINKING_IN_ANTHROPIC = RELEASE < (0, 3)


class Answer(NamedTuple):
    reasoning: str = ""
    content: str = ""
    calls: tuple = ()
    reason: str = "stop"


def calls(*made: tuple[str, dict]) -> dict[str, Any]:
    return {"calls": made, "reason": "tool_calls"}


THOUGHT_AND_CALL = f"{THOUGHT}\nhm{END}{call(f'a:{QUOTE}{CALL_END}{QUOTE}')}"
SAID = {
    "Hello there.": Answer(content="Hello there."),
    f"{THOUGHT}\nhm{END}response time": Answer("hm", "response time"),
    f"{THOUGHT}\na{END}b{THOUGHT}\nc{END}d": Answer("a\nc", "bd"),
    f"{RESPONSE}\nHi": Answer(content="Hi"),
    f"Hi {call('a:1')}{call('b:2', 'get-it')}": Answer(
        content="Hi ", **calls(("f", {"a": 1}), ("get-it", {"b": 2}))
    ),
    THOUGHT_AND_CALL: Answer("hm", **calls(("f", {"a": CALL_END}))),
    f"{call('a:')}!": Answer(content="call:f{a:}!"),
    f"{START}call:f{{a:1}}": Answer(**calls(("f", {"a": 1}))),
    f"Hi{THOUGHT}\nhm{END}!{call('a:1')}": Answer("hm", "Hi!", **calls(("f", {"a": 1}))),
    f"hm{END}Sunny.": Answer("hm", "Sunny."),  # where the prompt opens the thought
    "Sunny.": Answer(content="Sunny."),
}
NUMBERS = {text: number for number, text in enumerate(SAID)}
OPENED = NUMBERS[f"hm{END}Sunny."]
PLAIN, SHORT = NUMBERS["Sunny."], NUMBERS["Hello there."]
ALONE = [number for number in NUMBERS.values() if number != OPENED]
ANSWERS = list(SAID.values())

UNENDED = NUMBERS[f"{START}call:f{{a:1}}"]
TWO = NUMBERS[f"Hi {call('a:1')}{call('b:2', 'get-it')}"]
THOUGHTFUL = NUMBERS[f"{THOUGHT}\na{END}b{THOUGHT}\nc{END}d"]
CUT = {  # by number and max_tokens
    (SHORT, 1): Answer(content="Hello th", reason="length"),
    (THOUGHTFUL, 3): Answer(reasoning="a", reason="length"),
    (TWO, 3): Answer(content="Hi call:f{a", reason="length"),
}

PARAMETERS = {"type": "object", "properties": {}}


class OpenAI:
    """The client of an OpenAI application."""

    def __init__(self, port: int, model: str):
        self._client = openai.OpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=60
        )
        names = ("f", "get-it")
        tools = [
            {"type": "function", "function": {"name": n, "parameters": PARAMETERS}} for n in names
        ]
        self._request = {"model": model, "max_tokens": 64, "tools": tools}

    def whole(self, number: int, history: list | None = None, **options: Any) -> Answer:
        made = self._client.chat.completions.create(
            messages=self._conversation(number, history), **self._request | options
        ).choices[0]
        called = made.message.tool_calls or []
        assert len({one.id for one in called}) == len(called)
        return Answer(
            _reasoning(made.message),
            made.message.content or "",
            tuple((one.function.name, json.loads(one.function.arguments)) for one in called),
            made.finish_reason,
        )

    def streamed(self, number: int, history: list | None = None, **options: Any) -> Answer:
        reasoning = content = ""
        made: list[list] = []
        reasons = []
        for chunk in self._client.chat.completions.create(
            messages=self._conversation(number, history), stream=True, **self._request | options
        ):
            (choice,) = chunk.choices
            reasoning += _reasoning(choice.delta)
            content += choice.delta.content or ""
            for one in choice.delta.tool_calls or []:
                assert one.index == len(made)
                made.append([one.function.name, json.loads(one.function.arguments)])
            reasons += [choice.finish_reason] if choice.finish_reason else []
        if ENDS_TWICE and number == UNENDED:
            assert reasons.pop(0) == "stop"
        (reason,) = reasons
        return Answer(reasoning, content, tuple(map(tuple, made)), reason)

    def _conversation(self, number: int, history: list | None) -> list[dict]:
        asked = {"role": "user", "content": f"Hi {sayings.ask(number)}"}
        if history is None:
            return [asked]
        made = [
            {"id": f"c{i}", "type": "function", "function": {"name": name, "arguments": "{}"}}
            for i, (name, _) in enumerate(history)
        ]
        results = [
            {"role": "tool", "tool_call_id": f"c{i}", "content": f"{result} {sayings.ask(number)}"}
            for i, (_, result) in enumerate(history)
        ]
        return [asked, {"role": "assistant", "content": "", "tool_calls": made}, *results]


def _reasoning(message: Any) -> str:
    extra = message.model_extra or {}
    return extra.get("reasoning_content") or extra.get("reasoning") or ""


class Anthropic:
    """The client of an Anthropic application, such as Claude Code."""

    def __init__(self, port: int, model: str):
        self.model = model
        self._client = anthropic.Anthropic(
            base_url=f"http://127.0.0.1:{port}", api_key="none", max_retries=0, timeout=60
        )
        tools = [{"name": name, "input_schema": PARAMETERS} for name in ("f", "get-it")]
        self._request = {"model": model, "max_tokens": 64, "tools": tools}

    def whole(self, *asked: Any, message: str | None = None, **options: Any) -> Answer:
        conversation = self._conversation(*asked, message=message)
        return _of_blocks(
            self._client.messages.create(messages=conversation, **self._request | options)
        )

    def streamed(self, *asked: Any, message: str | None = None, **options: Any) -> Answer:
        conversation = self._conversation(*asked, message=message)
        with self._client.messages.stream(
            messages=conversation, **self._request | options
        ) as events:
            return _of_blocks(events.get_final_message())

    def _conversation(
        self, number: int = 0, history: list | None = None, message: str | None = None
    ) -> list[dict]:
        asked = {"role": "user", "content": message or f"Hi {sayings.ask(number)}"}
        if history is None:
            return [asked]
        made = [
            {"type": "tool_use", "id": f"c{i}", "name": name, "input": {}}
            for i, (name, _) in enumerate(history)
        ]
        results = [
            {
                "type": "tool_result",
                "tool_use_id": f"c{i}",
                "content": f"{result} {sayings.ask(number)}",
            }
            for i, (_, result) in enumerate(history)
        ]
        return [
            asked,
            {"role": "assistant", "content": made},
            {"role": "user", "content": results},
        ]


def _of_blocks(message: Any) -> Answer:
    found = {"thinking": "", "text": ""}
    called = []
    for block in message.content:
        if block.type == "tool_use":
            called.append((block.name, block.input))
        else:
            found[block.type] += getattr(block, block.type)
    reason = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length"}
    return Answer(found["thinking"], found["text"], tuple(called), reason[message.stop_reason])


class Served(NamedTuple):
    mode: str
    post: server.Server
    clients: dict[str, Any]


@pytest.fixture(scope="module", params=["simple", "continuous-batching"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = sayings.save(tmp_path_factory.mktemp("gemma-4-tiny"), list(SAID))
    arguments = ["--reasoning-parser", "gemma4", "--tool-call-parser", "gemma4"]
    arguments += ["--enable-auto-tool-choice"]
    if request.param != "simple":
        arguments.append(f"--{request.param}")
    with server.serve("vllm_mlx", folder, *arguments, program="tests.hosts.sayings") as post:
        clients = {
            "openai": OpenAI(post.port, str(folder)),
            "anthropic": Anthropic(post.port, str(folder)),
        }
        yield Served(request.param, post, clients)


@pytest.fixture(params=["openai", "anthropic"])
def client(served: Served, request: pytest.FixtureRequest) -> Any:
    return served.clients[request.param]


def _without_markers(answer: Answer) -> Answer:
    return answer._replace(content=answer.content.replace(START, "").replace(CALL_END, ""))


def _without_thoughts(answer: Answer) -> Answer:
    begin, thought, end = answer.content.partition(THOUGHT)
    thought, _, end = end.partition(END)
    return answer._replace(reasoning=thought.strip(), content=(begin + end).strip())


def _stripped(answer: Answer) -> Answer:
    """The server strips the content of an answer that it does not stream."""
    return answer._replace(content=answer.content.strip())


@pytest.mark.parametrize("number", ALONE)
def test_an_answer_is_what_was_said(client: Any, number: int) -> None:
    answer, wanted = client.whole(number), ANSWERS[number]
    if SHOWS_THOUGHTS_OF_CALLS and wanted.reasoning and wanted.calls:
        answer = _without_thoughts(answer)
    if SHOWS_MARKERS_OF_CALLS and not wanted.calls:
        answer = _without_markers(answer)
    assert answer == _stripped(wanted)


@pytest.mark.parametrize("number", ALONE)
def test_a_stream_is_what_was_said(client: Any, number: int) -> None:
    assert client.streamed(number) == ANSWERS[number]


@pytest.mark.parametrize(("number", "tokens"), [(SHORT, 1), (THOUGHTFUL, 3)])
def test_an_answer_that_is_cut_says_so(client: Any, number: int, tokens: int) -> None:
    cut = CUT[number, tokens]
    assert client.whole(number, max_tokens=tokens) == _stripped(cut)
    assert client.streamed(number, max_tokens=tokens) == cut


def test_a_call_that_is_cut_is_text(client: Any) -> None:
    cut = CUT[TWO, 3]
    answer = client.whole(TWO, max_tokens=3)
    assert (_without_markers(answer) if SHOWS_MARKERS_OF_CALLS else answer) == cut
    if not LOSES_CUT_CALLS:
        assert client.streamed(TWO, max_tokens=3) == cut


RESULTS = [("f", "warm"), ("get-it", "dry")]


def test_results_of_tools_go_back_to_the_model(client: Any) -> None:
    if HAS_NO_CALLS_IN_TEMPLATES:
        pytest.skip("the engines of this vllm-mlx lose the calls of a conversation")
    assert client.whole(OPENED, RESULTS) == ANSWERS[OPENED]
    assert client.streamed(OPENED, RESULTS) == ANSWERS[OPENED]


def test_requests_at_once_are_answered_as_alone(served: Served) -> None:
    if served.mode == "simple":
        pytest.skip("takes one at a time; 0.6.0 tells the others to come back")
    jobs = [
        (way, number)
        for number in ALONE
        for client in served.clients.values()
        for way in (client.whole, client.streamed)
    ] * 2
    alone = {job: job[0](job[1]) for job in jobs}
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda job: job[0](job[1]), jobs))
    assert made == [alone[job] for job in jobs]


def test_a_client_decides_whether_the_model_thinks(served: Served) -> None:
    if HAS_NO_THINKING_IN_ANTHROPIC:
        pytest.skip("this vllm-mlx does not ask Anthropic clients whether to think")
    client, message = served.clients["anthropic"], sayings.ask(PLAIN, SHORT)
    for way in (client.whole, client.streamed):
        budget = {"type": "enabled", "budget_tokens": 1024}
        assert way(message=message, thinking=budget) == ANSWERS[PLAIN]
        assert way(message=message, thinking={"type": "disabled"}) == ANSWERS[SHORT]


def test_a_lone_backslash_is_no_reason_to_refuse_a_request(served: Served) -> None:
    body = {
        "model": served.clients["anthropic"].model,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": f"PATH {sayings.ask(PLAIN)}"}],
    }
    written = json.dumps(body).replace("PATH", r"C:\\s \d C:\usr")
    (block,) = served.post("/v1/messages", written.encode())["content"]
    assert block["text"] == ANSWERS[PLAIN].content
