"""vllm-mlx's parser makes every call of Gemma 4 once, at its own index, and loses no text."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gemma4_patches.gemma4.tool_calls import END, QUOTE, START
from tests.hosts.chat import call
from tests.hosts.contract import PatchContract, patched, stock

ID = "vllm_mlx.tool_parser"

pytest.importorskip("vllm_mlx")
pytest.importorskip(
    "vllm_mlx.tool_parsers.gemma4_tool_parser", reason="no parser for Gemma 4 in this vllm-mlx"
)


def parser():
    from vllm_mlx.tool_parsers.gemma4_tool_parser import Gemma4ToolParser

    return Gemma4ToolParser(None)


def whole(text):
    """Content, and names and arguments of the calls, of a whole text."""
    made = parser().extract_tool_calls(text)
    assert made.tools_called == bool(made.tool_calls)
    assert len({call["id"] for call in made.tool_calls}) == len(made.tool_calls)
    return made.content or "", [(c["name"], json.loads(c["arguments"])) for c in made.tool_calls]


def streamed(parts, by=None):
    """As ``whole``, of a stream."""
    reading, text, deltas = by or parser(), "", []
    for part in parts:
        deltas.append(reading.extract_tool_calls_streaming(text, text + part, part))
        text += part
    deltas.append(reading.finalize_streaming(text))
    content = "".join(delta.get("content", "") for delta in deltas if delta)
    calls = [call for delta in deltas if delta for call in delta.get("tool_calls", ())]
    assert [call["index"] for call in calls] == list(range(len(calls)))
    assert len({call["id"] for call in calls}) == len(calls)
    functions = [call["function"] for call in calls]
    return content, [(f["name"], json.loads(f["arguments"])) for f in functions]


class TestToolParser(PatchContract):
    id = ID

    def untouched(self):
        """Calls that the host makes, to the letter, and what it streams of them."""
        seen = []
        for text in (
            "",
            "Hello [1] {a}",
            call(f"a:1,b:-1.5e3,c:true,d:null,e:{QUOTE}x \"y\" 'z'\né{QUOTE}"),
            f"Hi {call(f'a:{{b:{{c:{QUOTE}x{QUOTE}}}}},d:{{}},e:[1,{QUOTE}x{QUOTE},[2]]')}",
            f"{START}call:f{{a:1}}call:g{{b:2}}{END}",
            "call:f(a=1)",
        ):
            made = parser().extract_tool_calls(text)
            calls = [{**made, "id": None} for made in made.tool_calls]
            seen.append([made.tools_called, calls, made.content])
            if text.count("call:") < 2:
                reading, so_far = parser(), ""
                for part in re.split("(?=<)", text):
                    delta = reading.extract_tool_calls_streaming(so_far, so_far + part, part)
                    so_far += part
                    for one in (delta or {}).get("tool_calls", ()):
                        one["id"] = None
                    seen.append(delta)
        return seen


ANSWERS = {
    "Hello": ("Hello", []),
    f"{call('a:1')}{call('b:2', 'g')}": ("", [("f", {"a": 1}), ("g", {"b": 2})]),
    f"One {call('a:1')}, two {call('a:2')}!": ("One , two !", [("f", {"a": 1}), ("f", {"a": 2})]),
    call("my-key:1,a.b:None", "ns.get-it"): ("", [("ns.get-it", {"my-key": 1, "a.b": None})]),
    call("a:1", "mcp:srv/get"): ("", [("mcp:srv/get", {"a": 1})]),
    call(f'"a":"x, y",{QUOTE}b{QUOTE}:\'z\''): ("", [("f", {"a": "x, y", "b": "z"})]),
    call(f"a:{QUOTE}{END}{START}{QUOTE},b:{QUOTE}}}{QUOTE}"): (
        "",
        [("f", {"a": END + START, "b": "}"})],
    ),
    f"{START}call:f{{a:1}}": ("", [("f", {"a": 1})]),
    f"Hi {START}call:f{{a:": ("Hi call:f{a:", []),
    f"{call('a:')}{call('b:2')}": ("call:f{a:}", [("f", {"b": 2})]),
    f"{call(f'a:{QUOTE}x')}{call(f'b:{QUOTE}y{QUOTE}', 'g')}!": (
        f"call:f{{a:{QUOTE}x}}!",
        [("g", {"b": "y"})],
    ),
}


@pytest.mark.parametrize("text", ANSWERS)
def test_every_call_is_made_once_and_other_text_is_content(text):
    with patched(ID):
        assert whole(text) == ANSWERS[text]
        assert streamed(list(text)) == ANSWERS[text]
        assert streamed([text]) == ANSWERS[text]


@given(
    st.lists(
        st.sampled_from([START, END, QUOTE, call("a:1"), call("b:", "g"), "call:f{", "}", "a<"])
    ),
    st.data(),
)
def test_any_cut_of_a_stream_gives_the_same(fragments, data):
    text = "".join(fragments)
    cuts = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text))))})
    parts = [text[begin:end] for begin, end in itertools.pairwise(cuts)]
    with patched(ID):
        content, calls = streamed(parts)
        assert (content, calls) == streamed(list(text))
        assert whole(text) == ((content.strip() if calls else content), calls)


def test_streams_that_share_a_parser_do_not_disturb_each_other():
    """Up to 0.4.0 the server has one parser."""
    shared, seen = parser(), {}
    texts = [f"{call(f'a:{n}')} {n} {call(f'b:{n}')}" for n in (1, 1, 2, 3)]
    so_far = [""] * len(texts)
    with patched(ID):
        for i in range(max(map(len, texts))):
            shared.reset()  # as for a stream that begins now
            for n, text in enumerate(texts):
                part = text[i : i + 1]
                now = so_far[n] + part
                delta = shared.extract_tool_calls_streaming(so_far[n], now, part)
                so_far[n] = now
                for one in (delta or {}).get("tool_calls", ()):
                    function = one["function"]
                    found = (one["index"], json.loads(function["arguments"]))
                    seen.setdefault(n, []).append(found)
    assert seen == {n: [(0, {"a": k}), (1, {"b": k})] for n, k in enumerate((1, 1, 2, 3))}


def test_forms_that_only_the_host_knows_are_still_made():
    with stock(ID):
        expected = whole("call:f(a=1)"), whole(f"{START}call:f(a=1){END}")
    with patched(ID):
        assert whole("call:f(a=1)") == expected[0]
        found = whole(f"{START}call:f(a=1){END}")
        assert found == expected[1] if expected[1][1] else found == ("call:f(a=1)", [])


def test_a_call_in_a_form_of_the_host_is_streamed_once_and_as_soon_as_it_is_complete():
    text, expected = f"{START}call:f(a=')')", [("f", {"a": ")"})]
    with stock(ID):
        known = whole(text)[1] == expected
    with patched(ID):
        for rest in ("", " ", END, f" {END}{call('b:2')}"):
            wanted = expected + [("f", {"b": 2})] * rest.count("{")
            assert streamed(list(text + rest))[1] == (wanted if known else wanted[1:])
        told = parser().extract_tool_calls_streaming(
            previous_text=text[:-1], current_text=text, delta_text=text[-1:]
        )
        assert bool(told) == known


def test_without_the_patch_the_second_call_is_lost():
    with stock(ID):
        assert len(whole(f"{call('a:1')}{call('b:2')}")[1]) == 1
