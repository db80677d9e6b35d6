"""mlx-vlm understands the tool calls that Gemma 4 makes, one and several, at once and streamed."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gemma4_patches.gemma4 import tool_calls
from tests.hosts.chat import QUOTE, call
from tests.hosts.contract import PatchContract, patched, skip_unless_needed, stock

ID = "mlx_vlm.tool_parser"

pytest.importorskip("mlx_vlm.models.gemma4")

pytest_plugins = "tests.hosts.mlx_vlm_chat"


def parser():
    for name in ("mlx_vlm.tools.parsers.gemma4", "mlx_vlm.tool_parsers.gemma4"):
        with suppress(ImportError):
            return import_module(name)
    pytest.skip("this mlx-vlm leaves Gemma 4's tool calls to mlx-lm")


class TestToolParser(PatchContract):
    id = ID

    def untouched(self):
        module = parser()
        texts = (
            "",
            "a:1,b:-1.5e3,c:true,d:null",
            f"a:{QUOTE}x, \"y\" \\ 'z'\n\u00e9{QUOTE},b:[1,{QUOTE}x{QUOTE},[2]]",
            f"a:{{b:{{c:{QUOTE}x{QUOTE}}}}},d:{{}},e:[]",
            "a:",  # is the host's to read
            f"a:{QUOTE}x",
        )
        seen = [module.parse_tool_call(f"call:f{{{text}}}") for text in texts]
        for text in ("Hello", "call:f(a=1)"):
            with pytest.raises(ValueError) as error:
                module.parse_tool_call(text)
            seen.append(str(error.value))
        return seen


@pytest.fixture(autouse=True)
def _patched():
    with patched(ID):
        yield


def calls(chat, says):
    """The calls of an answer, which are those of a stream."""
    made, streamed = chat.answer(says), chat.stream(says)
    assert streamed["calls"] == made["calls"], (streamed, made)
    return made["calls"]


@pytest.mark.parametrize("name", ["get-weather", "ns.get", "mcp:srv/get", "a:b:create-pdf_file"])
def test_the_server_takes_names_with_name_spaces(mlx_vlm_chat, name):
    assert calls(mlx_vlm_chat, call("a:1", name)) == [{name: {"a": 1}}]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("my-key:1,a.b:2,$ref:3,my key:4", {"my-key": 1, "a.b": 2, "$ref": 3, "my key": 4}),
        (f"{QUOTE}k{QUOTE}:1,\"l\":2,'m':3", {"k": 1, "l": 2, "m": 3}),
        (f"a:{QUOTE}x }} y{QUOTE}", {"a": "x } y"}),
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
def test_the_server_takes_arguments_in_every_form(mlx_vlm_chat, arguments, expected):
    assert calls(mlx_vlm_chat, call(arguments)) == [{"f": expected}]


def test_the_server_takes_several_calls(mlx_vlm_chat):
    says = f"{call(f'a:{QUOTE}}}{QUOTE}')}{call('b:None', 'ns.g')}{call('c:[1,2]')}"
    assert calls(mlx_vlm_chat, says) == [
        {"f": {"a": "}"}},
        {"ns.g": {"b": None}},
        {"f": {"c": [1, 2]}},
    ]


def test_of_several_calls_between_two_markers_the_first_is_taken_everywhere(mlx_vlm_chat):
    says = f"{tool_calls.START}call:f{{a:1}}call:g{{b:2}}{tool_calls.END}"
    made = mlx_vlm_chat.answer(says)["calls"]
    assert made in ([{"f": {"a": 1}}], [{"f": {"a": 1}}, {"g": {"b": 2}}])  # from 0.6.2 on


def test_the_result_of_a_call_goes_back_to_the_model(mlx_vlm_chat):
    says = call(f"a:{QUOTE}x }} y{QUOTE}", "ns.get")
    made = mlx_vlm_chat.reply(says)["choices"][0]["message"]
    history = [
        {"role": "user", "content": "hi"},
        {key: made[key] for key in ("role", "content", "tool_calls")},
        {"role": "tool", "tool_call_id": made["tool_calls"][0]["id"], "content": "sunny"},
    ]
    assert mlx_vlm_chat.answer("Sunny.", history)["content"] == "Sunny."


def test_without_the_patch_arguments_are_cut(mlx_vlm_chat):
    skip_unless_needed(ID)
    with stock(ID):
        made = mlx_vlm_chat.answer(call(f"a:{QUOTE}x }} y{QUOTE}"))
    assert made["calls"] != [{"f": {"a": "x } y"}}]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab }{,:\"'<|\n\u00e9\U0001f600"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c-d"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "key", "my-key"]), values, max_size=4), st.data())
def test_what_is_streamed_is_the_beginning_of_the_call(arguments, data):
    streaming = pytest.importorskip("mlx_vlm.tools.streaming")  # from 0.7.8 on
    text = call(_written(arguments)[1:-1])
    cuts = {0, len(text), *data.draw(st.lists(st.integers(0, len(text))))}
    bounds = sorted(cuts)
    state = streaming.ToolCallDeltaState(parser(), [{}])
    sent = ""
    for begin, end in itertools.pairwise(bounds):
        for delta in state.feed(text[begin:end]):
            sent += delta["function"]["arguments"]
    assert json.loads(sent) == arguments


def _written(value):
    if value is None:
        return "None"
    if isinstance(value, str):
        return QUOTE + value.replace(QUOTE, "") + QUOTE
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return str(value)


def test_a_long_string_is_streamed_before_the_call_is_complete():
    streaming = pytest.importorskip("mlx_vlm.tools.streaming")  # from 0.7.8 on
    state = streaming.ToolCallDeltaState(parser(), [{}])
    said = f"{tool_calls.START}call:f{{n:1,path:{QUOTE}a{QUOTE},text:{QUOTE}It is {{ long"
    sent = "".join(delta["function"]["arguments"] for delta in state.feed(said))
    assert sent == '{"n": 1, "path": "a", "text": "It is { long'
