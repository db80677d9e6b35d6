import contextlib
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from mlx_gemma4_patches import matrix

TEXT = """
schema: 1
releases: {mlx-lm: [1.0.0, 1.1.0]}
advice:
- {when: {mlx-lm: ==1.0.0}, text: upgrade}
patches:
  mlx_lm.fault:
    title: a fault
    faulty:
    - {mlx-lm: <1.1, mlx: ">=2"}
    - {mlx-lm: ==1.1.0}
    code:
    - {releases: [1.0.0], targets: {"mlx_lm.a:f": abcd}}
end: file
"""


def test_a_condition_holds_when_all_parts_of_one_alternative_do():
    row = matrix.parse(TEXT).rows["mlx_lm.fault"]
    assert row.is_faulty({"mlx-lm": Version("1.0.0"), "mlx": Version("2.0")})
    assert not row.is_faulty({"mlx-lm": Version("1.0.0"), "mlx": Version("1.0")})
    assert not row.is_faulty({"mlx-lm": Version("1.0.0")})
    assert row.is_faulty({"mlx-lm": None, "mlx": Version("2")})  # it may be
    assert not row.is_faulty({"mlx": Version("2")})
    assert row.is_faulty({"mlx-lm": Version("1.1.0")})


def test_dev_and_local_versions_are_no_measured_releases():
    known = matrix.parse(TEXT)
    assert known.release("mlx-lm", Version("1.0")) == "1.0.0"
    assert known.release("mlx-lm", Version("1.0.0+local")) is None
    assert known.release("mlx-lm", Version("1.1.0.dev1")) is None
    assert known.release("mlx-lm", None) is None


def test_advice_is_for_its_combination_only():
    known = matrix.parse(TEXT)
    assert known.advise({"mlx-lm": Version("1.0.0")}) == ["upgrade"]
    assert known.advise({"mlx-lm": Version("1.1.0")}) == []
    assert known.advise({"mlx-lm": None}) == []


def test_advice_is_for_its_system_only_and_names_its_source(monkeypatch):
    part = {"when": {"mlx": ">=0"}, "text": "a crash", "link": "https://x", "system": "Darwin"}
    known = matrix.parse(yaml.safe_dump({**yaml.safe_load(TEXT), "advice": [part]}))
    for system, said in (("Darwin", ["a crash (https://x)"]), ("Linux", [])):
        monkeypatch.setattr(matrix.platform, "system", lambda system=system: system)
        assert known.advise({"mlx": Version("1")}) == said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "schema 2 is not 1"),
        ({"releases": None}, "releases: expected a mapping"),
        ({"releases": {"mlx-lm": ["x y"]}}, "releases.mlx-lm"),
        ({"releases": {"mlx-lm": [1.5]}}, "expected text, found 1.5"),
        ({"patches": []}, "patches: expected a mapping"),
        ({"patches": {"no-host": {}}}, "an id is host.fault"),
        ({"patches": {"a.b": {"title": "t", "faulty": [{"a": "~~1"}]}}}, "patches.a.b.faulty.a"),
        ({"patches": {"a.b": {"title": "t", "faulty": [], "colour": 1}}}, "unknown keys colour"),
        ({"patches": {"a.b": {"title": "t", "faulty": [], "opt_in": "no"}}}, "neither true nor"),
        ({"patches": {"a.b": {"title": "t", "faulty": [], "kind": "hack"}}}, "neither fix nor add"),
        ({"patches": {"a.b": {"faulty": []}}}, "patches.a.b.title"),
        ({"advice": [{"when": {}, "text": "t", "url": "u"}]}, "advice: unknown keys url"),
        ({"advice": [{"when": {}, "text": "t", "link": 1}]}, "advice.link: expected text"),
        ({"evidence": {"a.b": {"finished": []}}}, "evidence.a.b: unknown outcomes finished"),
    ],
)
def test_a_breach_of_the_schema_is_named_with_its_place(change, words):
    data = {**yaml.safe_load(TEXT), **change}
    with pytest.raises(matrix.MatrixError, match=r"^the file: ") as caught:
        matrix.parse(yaml.safe_dump(data), "the file")
    assert words in str(caught.value)


DOCUMENTS = """
schema: 1
releases: {}
end: document
---
host: one
patches: {one.fault: {title: a, faulty: []}}
end: document
---
host: two
patches: {two.fault: {title: b, faulty: []}}
end: document
---
evidence: {one.fault: {fixed: [here]}}
end: file
"""


def test_a_host_reads_no_further_than_its_own_patches():
    assert set(matrix.parse(DOCUMENTS).rows) == {"one.fault", "two.fault"}
    assert matrix.parse(DOCUMENTS).evidence["one.fault"].outcomes == {"fixed": ("here",)}
    broken = DOCUMENTS.replace("host: two", "host: [")
    assert set(matrix.parse(broken, host="one").rows) == {"one.fault"}
    with pytest.raises(matrix.MatrixError, match="no valid YAML"):
        matrix.parse(broken, host="two")


@pytest.mark.parametrize(
    "text",
    [
        *("", "[", "a: b: c", "\x00", "!!python/object:os.system {}"),
        *("a: !!bool zz", "a: !!timestamp zz", "a: !!int zz", "a: &b [*b]", "? [1]: 2"),
    ],
)
def test_what_is_no_plain_yaml_mapping_is_refused(text):
    with pytest.raises(matrix.MatrixError):
        matrix.parse(text)


@given(st.text())
def test_any_text_is_read_or_refused_with_one_line(text):
    try:
        matrix.parse(text)
    except matrix.MatrixError as error:
        assert "\n" not in str(error)


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["title", "faulty", "code", "evidence", "releases", "targets", "a.b"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(patches=_values, releases=_values, advice=_values, evidence=_values)
def test_any_structure_is_read_or_refused(patches, releases, advice, evidence):
    first = {"schema": 1, "releases": releases, "advice": advice}
    documents = [
        {**first, "end": "document"},
        {"patches": patches, "end": "document"},
        {"evidence": evidence, "end": "file"},
    ]
    with contextlib.suppress(matrix.MatrixError):
        matrix.parse(yaml.safe_dump_all(documents))


def test_a_file_that_is_cut_anywhere_is_refused():
    text = matrix.path().read_text(encoding="utf-8")
    ends = [match.end() for match in re.finditer(r"^end: \w+$", text, re.MULTILINE)]
    for host, end in zip((None, "mlx_lm", "mlx_vlm", "vllm_mlx", None), ends, strict=True):
        if host is None and end != ends[-1]:
            continue  # what all share is no use alone
        for cut in {*range(0, end, end // 25), end - 1, *ends[: ends.index(end)]}:
            with pytest.raises(matrix.MatrixError, match=r"cut off|no valid YAML|expected a"):
                matrix.parse(text[:cut], host=host)
        matrix.parse(text[:end], host=host)


def test_the_shipped_file_follows_the_schema_and_names_only_what_it_measured():
    known = matrix.load()
    assert known.evidence.keys() == known.rows.keys()
    for patch_id, evidence in known.evidence.items():
        assert set().union(*evidence.outcomes.values()) <= set(known.combinations), patch_id
    for row in known.rows.values():
        assert {r for code in row.code for r in code.releases} <= set(
            known.releases[row.distribution]
        )
