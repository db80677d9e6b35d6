"""mlx-lm understands the tool calls that Gemma 4 makes, one and several, at once and streamed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.hosts.chat import QUOTE, call
from tests.hosts.contract import PatchContract, patched, stock

ID = "mlx_lm.tool_parser"
ANSWERS = {
    "Hello": {"content": "Hello", "finish_reason": "stop"},
    call("a:1"): {"content": None, "calls": [{"f": {"a": 1}}], "finish_reason": "tool_calls"},
    f"Two: {call('a:1')}{call('b:2', 'ns.g')}": {
        "content": "Two: ",
        "calls": [{"f": {"a": 1}}, {"ns.g": {"b": 2}}],
        "finish_reason": "tool_calls",
    },
    f"{call('a:None')} and {call('a:+3,')}!": {
        "content": " and !",
        "calls": [{"f": {"a": None}}, {"f": {"a": 3}}],
        "finish_reason": "tool_calls",
    },
}

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")

pytest_plugins = "tests.hosts.chat_server"


def parse(text):
    from mlx_lm.tool_parsers.gemma4 import parse_tool_call

    return parse_tool_call(text, None)


class TestToolParser(PatchContract):
    id = ID

    def untouched(self):
        return [
            parse(f"call:f{{{arguments}}}")
            for arguments in (
                "",
                "a:1,b:-1.5e3,c:true,d:null",
                f"a:{QUOTE}x, \"y\" \\ 'z'\n{QUOTE},b:[1,{QUOTE}x{QUOTE},[2]]",
                f"a:{{b:{{c:{QUOTE}x{QUOTE}}}}},d:{{}},e:[]",
                '"a":"b"',
            )
        ] + [parse("thinking call:f{a:1}<tool_call|> <|tool_call>call:g{b:2}")]


@pytest.mark.parametrize("name", ["get-weather", "ns.get", "mcp:srv/get", "a:b:create-pdf_file"])
def test_the_server_takes_names_with_name_spaces(chat_server, name):
    made = chat_server.both(call("a:1", name))
    assert made == {**made, "calls": [{name: {"a": 1}}], "finish_reason": "tool_calls"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("my-key:1,a.b:2,$ref:3,my key:4", {"my-key": 1, "a.b": 2, "$ref": 3, "my key": 4}),
        (f"{QUOTE}k{QUOTE}:1,\"l\":2,'m':3", {"k": 1, "l": 2, "m": 3}),
        (f"a:{QUOTE}if (x) {{ y }} else {{\n{QUOTE},b:[{{c:{QUOTE}}}{QUOTE}}}]",
         {"a": "if (x) { y } else {\n", "b": [{"c": "}"}]}),
        (f"a:{QUOTE}\"p, q\": 'r' \\{QUOTE}", {"a": "\"p, q\": 'r' \\"}),
        ("a:None,b:null,c:True,d:true", {"a": None, "b": None, "c": True, "d": True}),
        ("a:+3,b:-1.5e3,c:.5", {"a": 3, "b": -1500.0, "c": 0.5}),
        (f"a : 1, b: {QUOTE}x{QUOTE} ,\n c : [ 1, 2, ],", {"a": 1, "b": "x", "c": [1, 2]}),
        ("a:word,b:two words,c:'x, y',d:\"z\"",
         {"a": "word", "b": "two words", "c": "x, y", "d": "z"}),
    ],
)  # fmt: skip
def test_the_server_takes_arguments_in_every_form(chat_server, arguments, expected):
    made = chat_server.both(call(arguments))
    assert made == {**made, "calls": [{"f": expected}], "finish_reason": "tool_calls"}


def test_calls_of_requests_at_once_are_those_of_each_alone(chat_server):
    jobs = [(how, says) for says in ANSWERS for how in (chat_server.answer, chat_server.stream)] * 2
    with ThreadPoolExecutor(len(jobs)) as pool:
        made = list(pool.map(lambda job: job[0](job[1]), jobs))
    for (how, says), answer in zip(jobs, made, strict=True):
        expected = ANSWERS[says]
        if how == chat_server.stream:
            expected = {key: value for key, value in expected.items() if value is not None}
        assert answer == expected, says


def test_the_result_of_a_call_goes_back_to_the_model(chat_server):
    says = call(f"a:{QUOTE}x{QUOTE}", "ns.get")
    made = chat_server.reply(says)["choices"][0]["message"]
    history = [
        {"role": "user", "content": "hi"},
        made,
        {"role": "tool", "tool_call_id": made["tool_calls"][0]["id"], "content": "sunny"},
    ]
    assert chat_server.both("Sunny.", history) == {"content": "Sunny.", "finish_reason": "stop"}


@pytest.mark.parametrize("text", ["", "Hello", "call:f{a:", "call:f{a:1 b:2}", "call:f(a=1)"])
def test_what_is_no_call_is_refused(text):
    with patched(ID), pytest.raises(ValueError):
        parse(text)


def test_without_the_patch_such_calls_are_refused():
    with stock(ID), pytest.raises(ValueError):
        parse("call:ns.get{a:1}")
