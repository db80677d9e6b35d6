"""The parser of Gemma 4's tool-call markup takes back whatever Google's templates write."""

from __future__ import annotations

import contextlib
import itertools
import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlx_gemma4_patches.gemma4 import tool_calls
from mlx_gemma4_patches.gemma4.tool_calls import END, QUOTE, START, Reader, ToolCallError, parse
from tests.fuzz import texts
from tests.unit.counting import Steps

MARKUP = [START, END, QUOTE, *("call:", "call:f{", "null", "None", "true", "e5", "<|", "|>")]
MARKUP += list("{}[],:\"'\\\n a1-+.é\U0001f600")


def written(value, null="null") -> str:
    """``value`` as Google's templates write it; those of April and May 2026 write None."""
    if value is None:
        return null
    if isinstance(value, str):
        return QUOTE + value + QUOTE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        pairs = sorted(value.items(), key=lambda pair: pair[0].lower())
        return "{" + ",".join(f"{key}:{written(item, null)}" for key, item in pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(written(item, null) for item in value) + "]"
    return str(value)


def of_call(arguments: str, name: str = "f") -> dict:
    (call,) = parse(f"call:{name}{{{arguments}}}")
    assert call["name"] == name
    return call["arguments"]


markup = st.lists(st.sampled_from(MARKUP) | st.text(max_size=3), max_size=20).map("".join)
strings = (st.text(max_size=20) | markup).map(lambda text: text.replace(QUOTE, ""))
names = st.text(
    st.characters(categories=["L", "N"], include_characters="-_.:/"), min_size=1, max_size=20
)
bare = st.text(st.characters(exclude_characters=":,{}[]<"), max_size=12)
spaced_names = st.lists(st.text("az_$", min_size=1, max_size=3), min_size=2, max_size=3)
keys = bare.map(lambda key: key.strip().lstrip("'\"").strip()) | spaced_names.map(":".join)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | strings
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=10,
)
objects = st.dictionaries(keys, values, max_size=4)


@settings(deadline=None)
@given(objects, names, st.sampled_from(["null", "None"]))
def test_what_the_templates_write_is_read_back(arguments, name, null):
    assert parse(f"call:{name}{written(arguments, null)}") == [
        {"name": name, "arguments": arguments}
    ]


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=9), values, max_size=4), st.sampled_from([None, 1]))
def test_json_is_read_as_json(arguments, indent):
    text = json.dumps(arguments, indent=indent)
    assume(QUOTE not in text)
    assert parse(f"call:f{text}") == [{"name": "f", "arguments": arguments}]


@settings(deadline=None)
@given(st.lists(st.tuples(names, objects), min_size=1, max_size=4))
def test_several_calls_are_read_in_order_whatever_markers_are_between(calls):
    texts = [f"call:{name}{written(arguments)}" for name, arguments in calls]
    expected = [{"name": name, "arguments": arguments} for name, arguments in calls]
    assert parse("".join(texts)) == expected
    assert parse("thinking ... " + f"{END} \n{START}".join(texts) + END) == expected


@settings(deadline=None)
@given(st.text() | markup, st.booleans())
def test_any_text_is_read_or_refused_with_its_place(text, after_a_call):
    text = f"call:g{{a:{text}" if after_a_call else text
    try:
        for call in parse(text):
            json.loads(json.dumps(call, allow_nan=False))
    except ToolCallError as error:
        assert error.text == text
        assert 0 <= error.position <= len(text)
        assert text.endswith(error.rest) and (error.calls or error.rest == text[-len(error.rest) :])
        assert f"character {error.position}" in str(error)


@settings(deadline=None)
@given(objects, st.data())
def test_a_call_cut_anywhere_is_refused_and_its_text_kept(arguments, data):
    whole = f"call:first{{a:1}}{END}{START}call:f{written(arguments)}"
    begin = whole.index("call:f{")
    cut = whole[: data.draw(st.integers(begin + len("call:f"), len(whole) - 1))]
    with pytest.raises(ToolCallError) as raised:
        parse(cut)
    assert raised.value.calls == [{"name": "first", "arguments": {"a": 1}}]
    assert raised.value.rest == cut[begin:]


WRITTEN_OTHERWISE = {
    "": {},
    " \n": {},
    "a:1,": {"a": 1},
    'a : 1 , b : <|"|>x<|"|> ,\n c : [ 1 , 2 , ] ,': {"a": 1, "b": "x", "c": [1, 2]},
    "my-key:1,a.b:2,$ref:3,my key:4,naïve:5,6:7": dict(
        zip(["my-key", "a.b", "$ref", "my key", "naïve", "6"], [1, 2, 3, 4, 5, 7], strict=True)
    ),
    '<|"|>k<|"|>:1,"l m":2,\'n,o\': 3,it\'s:4': {"k": 1, "l m": 2, "n,o": 3, "it's": 4},
    "a:[null,None],b:[true,True],c:[false,False]": {
        "a": [None, None],
        "b": [True, True],
        "c": [False, False],
    },
    "a:[+3,-1.5e3,.5,5.,-0,1E+2,-.5e-1]": {"a": [3, -1500.0, 0.5, 5.0, 0, 100.0, -0.05]},
    "a:hello,b:New York ,c:[red, light blue]": {
        "a": "hello",
        "b": "New York",
        "c": ["red", "light blue"],
    },
    "a:[007,1e999,0x1F,nan,1.2.3]": {"a": ["007", "1e999", "0x1F", "nan", "1.2.3"]},
    "time:12:30,url:http://x.org:80/a?b=c": {"time": "12:30", "url": "http://x.org:80/a?b=c"},
    'xml:lang:<|"|>en<|"|>,a:b:{c:1},og:n:1': {"xml:lang": "en", "a:b": {"c": 1}, "og:n": 1},
    'a:"x, {y}: [z]",b:\'it\\\'s\',c:"he said "no" to me"': {
        "a": "x, {y}: [z]",
        "b": "it's",
        "c": 'he said "no" to me',
    },
    r'a:"tab\tline\nA\ud83d\ude00 C:\dir",b: "\\"': {
        "a": "tab\tline\nA\U0001f600 C:\\dir",
        "b": "\\",
    },
    'a:<|"|>{"b": [1, \'c\']}, d:e}\n<tool_call|><|tool_call>call:g{<|"|>': {
        "a": "{\"b\": [1, 'c']}, d:e}\n<tool_call|><|tool_call>call:g{"
    },
}


@pytest.mark.parametrize("arguments", WRITTEN_OTHERWISE)
def test_what_models_write_beside_is_read(arguments):
    assert of_call(arguments) == WRITTEN_OTHERWISE[arguments]


@pytest.mark.parametrize(
    "name", ["get-weather", "ns.get", "mcp:srv/get", "google:mcp:text_generation:create-pdf-file"]
)
def test_names_may_have_name_spaces(name):
    assert of_call("a:1", name) == {"a": 1}


MALFORMED = {
    "": "no call:NAME{...} at character 0",
    "Hello": "no call:NAME{...} at character 0",
    "call:f": "expected call:NAME{ at character 0",
    "call:f(a=1)": "expected call:NAME{ at character 0",
    "call:f{a:1 b:2}": "expected ',' or a quoted string at character 10",
    'call:f{a:<|"|>x<|"|>b:2}': "expected ',' or '}' at character 20",
    "call:f{a:1,,b:2}": "expected a key and ':' at character 11",
    "call:f{a:}": "expected a value at character 9",
    "call:f{a:[1,2}": "expected ',' or ']' at character 13",
    "call:f{a}": "expected a key and ':' at character 7",
    'call:f{a:"x,b:1}': "a string is not closed at character 9",
    'call:f{a:<|"|>x,b:1}': "a string is not closed at character 9",
    'call:f{"a"1}': "a string is not closed at character 7",
    'call:f{<|"|>a<|"|> 1}': "expected ':' at character 19",
    "call:f{a:" + "[" * 10**5: "nested deeper than 200 at character 208",
}


@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_malformed_is_refused_where_it_is(text):
    with pytest.raises(ToolCallError) as raised:
        parse(text)
    assert str(raised.value).startswith(MALFORMED[text])
    assert raised.value.rest == text


def steps(monkeypatch, shape, length, feed):
    """What ``feed`` reads of a text of ``length`` characters, for each of them."""
    counted = Steps()
    with monkeypatch.context() as patched:
        counted.watch(tool_calls, patched)
        text = texts.long(shape, length)
        with contextlib.suppress(ToolCallError):
            feed(text, counted)
    return counted.count / len(text)


@pytest.mark.parametrize("shape", texts.OF_CALLS)
def test_what_is_read_is_linear_in_the_text(monkeypatch, shape):
    def feed(text, counted):
        parse(counted.text(text))

    one, two = (steps(monkeypatch, texts.OF_CALLS[shape], n, feed) for n in (5_000, 10_000))
    assert two < 1.1 * one


@pytest.mark.parametrize("part", [None, 7], ids=["one feed", "many feeds"])
@pytest.mark.parametrize("shape", texts.OF_ANSWERS)
def test_what_a_reader_reads_is_linear_in_the_text(monkeypatch, shape, part):
    def feed(text, counted):
        reader = Reader(lambda call: parse(counted.text(call)))
        step = part or len(text)
        for at in range(0, len(text), step):
            reader.feed(counted.text(text[at : at + step]))
        reader.finish()

    monkeypatch.setattr(Reader, "AGAIN", 20_000)
    one, two = (steps(monkeypatch, texts.OF_ANSWERS[shape], n, feed) for n in (5_000, 10_000))
    assert two < 1.1 * one


def test_what_would_be_read_again_and_again_is_content(monkeypatch):
    text = f"{START}call:f{{a:{QUOTE}{END}{QUOTE}" * 3 + f"{START}call:g{{}}{END}!"
    content = f"call:f{{a:{QUOTE}{QUOTE}" * 3
    assert read([text]) == (f"{content}!", [{"name": "g", "arguments": {}}])
    monkeypatch.setattr(Reader, "AGAIN", len(text))
    assert read([text]) == read(list(text)) == (f"{content}call:g{{}}!", [])


def read(parts):
    """Content and calls of a text in parts."""
    reader = Reader()
    content, calls = zip(*map(reader.feed, parts), strict=True) if parts else ((), ())
    last, more = reader.finish()
    assert not reader.is_holding
    return "".join(content) + last, [*[call for part in calls for call in part], *more]


F1, G2 = {"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {"b": "y"}}


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        ("Hello <|", "Hello <|", []),
        (f"Hi{START}call:f{{a:1}}{END}!", "Hi!", [F1]),
        (f"{START}call:f{{a:1}}{END}{START}call:g{{b:{QUOTE}y{QUOTE}}}{END}", "", [F1, G2]),
        (f"{START}call:f{{a:1}}call:g{{b:{QUOTE}y{QUOTE}}}{END}", "", [F1, G2]),
        (f"{START}call:f{{a:1}}", "", [F1]),
        (
            f"{START}call:f{{a:{QUOTE}{END}{START}{QUOTE}}}{END}",
            "",
            [{"name": "f", "arguments": {"a": END + START}}],
        ),
        (f"{START}call:f{{a:{END}!", "call:f{a:!", []),
        (f"{START}call:f{{a:", "call:f{a:", []),
        (f"{START}call:f{{a:1}} and call:g{{b:{END}", "call:g{b:", [F1]),
        (f"{START}{END}{START}", "", []),
        (
            f"{START}call:h{{a:{QUOTE}x}}{END}and {START}call:g{{b:{QUOTE}y{QUOTE}}}{END}!",
            f"call:h{{a:{QUOTE}x}}and !",
            [G2],
        ),
        (f"{START}call:h{{a:{QUOTE}x}}{END}!", f"call:h{{a:{QUOTE}x}}!", []),
    ],
)
def test_calls_are_taken_out_of_a_text(text, content, calls):
    assert read([text]) == read(list(text)) == (content, calls)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*MARKUP, START, END, QUOTE, "call:f{a:1}"])), st.data())
def test_any_cut_of_a_text_gives_the_same_calls(parts, data):
    text = "".join(parts)
    cuts = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text))))})
    cut = [text[begin:end] for begin, end in itertools.pairwise(cuts)]
    assert read(cut) == read(list(text)) == read([text])


def test_a_reader_tells_that_a_call_goes_on_behind_an_end():
    reader = Reader()
    for text, is_behind in (
        (f"{START}call:f{{a:{QUOTE}x", False),
        (END[:5], False),
        (END[5:], True),
        (f"{QUOTE}}}", True),
        (END, False),
    ):
        reader.feed(text)
        assert reader.is_behind_end is is_behind
