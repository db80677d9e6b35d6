"""mlx-vlm's server answers all that the model says: whole calls, and the text around them."""

from __future__ import annotations

import json
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from mlx_gemma4_patches.gemma4 import tool_calls
from mlx_gemma4_patches.hosts.mlx_vlm import last_token
from mlx_gemma4_patches.hosts.mlx_vlm.tool_calls import host_parser
from tests.hosts.chat import QUOTE, call
from tests.hosts.contract import PatchContract, patched, stock

ID = "mlx_vlm.tool_call_lost"
START, END = tool_calls.START, tool_calls.END
NO_CALL = '{"name": "f"}'

pytest.importorskip("mlx_vlm.models.gemma4")

pytest_plugins = "tests.hosts.mlx_vlm_chat"


class TestToolCallLost(PatchContract):
    id = ID

    def untouched(self):
        """Calls that are plain, text without calls, and a parser of another model."""
        from mlx_vlm import server

        seen = []
        for parser, text in (
            (Gemma4, f"Hi {call('a:1')} and {call('b:2', 'g')}!"),
            (Gemma4, f"<|channel>thought\nhm<channel|>{call('a:1')}"),
            (Gemma4, "Hi"),
            (Other, f"Hi [call]{END}[/call]!"),
        ):
            made = server.process_tool_calls(text, parser, None)
            made = dict(made) if isinstance(made, dict) else vars(made)
            calls = [{**one, "id": None} for one in made["calls"]]
            seen.append([calls, made["remaining_text"], *streamed(parser, text)])
        return seen


class Gemma4:
    tool_call_start, tool_call_end = START, END

    @staticmethod
    def parse_tool_call(text, tools=None):
        (made,) = tool_calls.parse(text)
        return {**made, "arguments": json.dumps(made["arguments"])}


class Other:
    tool_call_start, tool_call_end = "[call]", "[/call]"

    @staticmethod
    def parse_tool_call(text, tools=None):
        return {"name": "f", "arguments": json.dumps({"a": text})}


def streamed(parser, text):
    """Content before the first call and marker: of what is behind, old releases lose much."""
    from mlx_vlm import server

    text = text.partition("<")[0]
    if not has_streams():
        return []
    if suppress := getattr(server, "suppress_tool_call_content", None):
        in_call, seen = False, []
        for end in range(1, len(text) + 1):
            in_call, delta = suppress(text[:end], in_call, parser.tool_call_start, text[end - 1])
            seen.append(delta)
        return seen
    from mlx_vlm.server.responses_state import ToolCallStreamState

    made = ToolCallStreamState(parser.tool_call_start, parser.tool_call_end)
    return [made.feed(part) for part in (text, *text)]


@pytest.fixture(autouse=True)
def _patched():
    with patched(ID):
        yield


def has_streams() -> bool:
    """From 0.5.0 on: before, a stream has all that the model says for content."""
    from mlx_vlm import server

    return not hasattr(server, "build_generation_kwargs")


def skip_without_parser() -> None:
    """mlx-vlm 0.4.3 takes that of mlx-lm, which has one from 0.31.2 on."""
    if host_parser() is None and find_spec("mlx_lm.tool_parsers.gemma4") is None:
        pytest.skip("neither host parses Gemma 4's tool calls")


def both(chat, says: str, **parameters) -> dict:
    """Content and calls of an answer, which are those of a stream."""
    skip_without_parser()
    whole = trimmed(chat.answer(says, **parameters))
    if has_streams():
        assert trimmed(chat.stream(says, **parameters)) == whole
    return whole


def both_where_a_call_is_cut(chat, says: str, **parameters) -> dict:
    """Without the calls of the stream: what is sent of one cannot be taken back when it is cut."""
    skip_without_parser()
    whole = trimmed(chat.answer(says, **parameters))
    if has_streams():
        chunks = chat.reply(says, stream=True, **parameters)["chunks"]
        deltas = [choice["delta"] or {} for chunk in chunks for choice in chunk["choices"]]
        content = "".join(delta.get("content") or "" for delta in deltas)
        assert content.strip() == whole["content"]
    return whole


def trimmed(answer: dict) -> dict:
    """Of white space around content, which streams up to 0.7.3 keep."""
    found = {"content": answer.get("content", "").strip(), "calls": answer.get("calls")}
    return {key: value for key, value in found.items() if value}


@pytest.mark.parametrize("text", [END, f"x {END} y", f"{END}}}", f"{START}call:g{{}}{END}{END}"])
def test_a_string_may_have_the_end_of_a_call_in_it(mlx_vlm_chat, text):
    says = call(f"a:{QUOTE}{text}{QUOTE},b:[{QUOTE}{text}{QUOTE}]")
    assert both(mlx_vlm_chat, says) == {"calls": [{"f": {"a": text, "b": [text]}}]}


def test_other_calls_and_content_may_follow_such_a_call(mlx_vlm_chat):
    says = f"{call(f'a:{QUOTE}x{END}{QUOTE}')} and {call(f'b:{QUOTE}y{QUOTE}', 'g')} so"
    made = both(mlx_vlm_chat, says)
    assert made["calls"] == [{"f": {"a": f"x{END}"}}, {"g": {"b": "y"}}]
    assert made["content"].split() == ["and", "so"]


@pytest.mark.parametrize(
    ("says", "content"),
    [
        (f"{call('a:1')}there", "there"),
        (f"Hi {call('a:1')}", "Hi"),
        (f"Hi{call('a:1')}there", "Hi there"),
        (f"Hi {call('a:1')}there {call('a:1')} so", "Hi  there   so"),
        (f"a < b {call('a:1')}c <", "a < b  c <"),
    ],
)
def test_the_text_around_calls_is_content(mlx_vlm_chat, says, content):
    made = both(mlx_vlm_chat, says)
    assert made["content"] == content
    assert made["calls"] == [{"f": {"a": 1}}] * says.count(START)


@pytest.mark.parametrize("rest", ["call:f{a:", f"call:f{{a:{QUOTE}x", "call:f{a:1,b:2", "call"])
@pytest.mark.parametrize("before", ["", "Hi ", call("a:1"), f"Hi {call('a:1')}"])
def test_a_call_that_is_cut_is_content(mlx_vlm_chat, before, rest):
    made = both_where_a_call_is_cut(mlx_vlm_chat, f"{before}{START}{rest}")
    shown = rest.replace(QUOTE, "")
    assert made["content"].split() == [*(["Hi"] if "Hi" in before else []), shown]
    assert made.get("calls", []) == [{"f": {"a": 1}}] * before.count(START)


def test_a_stream_in_which_max_tokens_cut_a_call_ends_as_the_answer_does(mlx_vlm_chat):
    says = f"{START}call:f{{a:1,b:{QUOTE}x{QUOTE}}}{END}"
    limit = len(mlx_vlm_chat.ids(f"{START}call:f{{a:1,b:{QUOTE}"))
    made = both_where_a_call_is_cut(mlx_vlm_chat, says, max_tokens=limit)
    assert made == {"content": "call:f{a:1,b:"}
    if has_streams():
        chunks = mlx_vlm_chat.reply(says, stream=True, max_tokens=limit)["chunks"]
        ends = [choice.get("finish_reason") for chunk in chunks for choice in chunk["choices"]]
        assert [end for end in ends if end] == ["length"]


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        (f"{START}{NO_CALL}{END}", {"content": NO_CALL}),
        (f"Hi {START}{NO_CALL}{END} there", {"content": f"Hi {NO_CALL} there"}),
        (
            f"{START}{NO_CALL}{END}{call('b:2')}",
            {"content": NO_CALL, "calls": [{"f": {"b": 2}}]},
        ),
        (
            f"{call('b:2')}{START}{NO_CALL}{END}",
            {"content": NO_CALL, "calls": [{"f": {"b": 2}}]},
        ),
    ],
)
def test_what_is_no_call_is_content(mlx_vlm_chat, says, expected):
    assert both(mlx_vlm_chat, says) == expected


def test_a_string_that_is_not_closed_ends_with_its_call(mlx_vlm_chat):
    says = f"{call(f'a:{QUOTE}x')}and {call('b:2', 'g')} so"
    made = both_where_a_call_is_cut(mlx_vlm_chat, says)
    assert made["content"].split() == ["call:f{a:x}and", "so"]
    assert made["calls"] == [{"g": {"b": 2}}]


def test_a_complete_call_that_the_turn_ends_in_is_made(mlx_vlm_chat):
    made = both(mlx_vlm_chat, f"Hi {START}call:f{{a:1}}")
    assert made == {"content": "Hi", "calls": [{"f": {"a": 1}}]}


def test_without_the_patch_a_string_is_cut(mlx_vlm_chat):
    skip_without_parser()
    says = call(f"a:{QUOTE}x {END} y{QUOTE}")
    with stock(ID):
        assert mlx_vlm_chat.answer(says).get("calls") != [{"f": {"a": f"x {END} y"}}]


def test_the_function_of_old_streams_is_what_it_was_for_all_but_the_server():
    from mlx_vlm import server

    suppress = getattr(server, "suppress_tool_call_content", None)
    if suppress is None:
        pytest.skip("this mlx-vlm has other streams")

    def told():
        parts = ("Hi", f"Hi{START}call:f{{}}", f"Hi{START[:4]}")
        return [
            server.suppress_tool_call_content(part, in_call, START, "x")
            for part in parts
            for in_call in (False, True)
        ]

    ours = told()
    with stock(ID):
        assert ours == told()


def test_tokens_of_any_kind_pass():
    reasons = {"a": None, "b": "stop"}
    tokens = [SimpleNamespace(text=text, finish_reason=reasons[text]) for text in reasons]
    tokens.append(SimpleNamespace(text="c"))  # of another make
    generate = last_token.telling(lambda self: ("context", iter(tokens)))
    _, (*passed, other) = generate(None)
    streams = []
    for token, text in zip(passed, reasons, strict=True):
        assert (token.text, token.finish_reason) == (text, reasons[text])
        streams.append((last_token.take(), last_token.take()))
    assert streams == [(streams[0][0], None)] * 2 and streams[0][0].is_at_last
    assert other is tokens[-1]
