"""The trace finds the first tensor that is wrong, and says so in words, records and JSON."""

from __future__ import annotations

import json

import mlx.core as mx
import numpy as np
import pytest

from mlx_gemma4_patches import __main__ as command_line
from mlx_gemma4_patches import trace
from mlx_gemma4_patches.trace import cases, checkpoint, limits, mlx_lm, taps, verdict

CASE = cases.Case("dense", "text")


def judged(change=lambda model: None, case=CASE):
    """The tensors of mlx-lm in this process, of a model that was changed."""
    stored, about = mx.load(str(cases.FOLDER / f"{case.shape}.safetensors"), return_metadata=True)
    sizes = json.loads(about["about"])["tensors"][case.reference]
    ids = stored[f"{case.reference}/ids"].tolist()
    model = mlx_lm.model(case)
    change(model)
    seen = mlx_lm.read(model, case, ids).seen(ids)
    return {
        name: limits.judge(
            size, np.array(stored[f"{case.reference}/{name}"]), *seen[name], "float32"
        )
        for name, size in sizes.items()
    }


def test_what_is_right_stays_within_the_limits():
    tensors = judged()
    assert verdict.first_beyond(tensors) is None
    assert all(tensor["violations"] == 0 for tensor in tensors.values())
    assert list(tensors)[:2] == ["embeddings", "layer 0 attention"]
    assert list(tensors)[-1] == "logits"


@pytest.mark.parametrize(
    ("part", "first"),
    [
        ("self_attn.o_proj", "layer 3 attention"),
        ("mlp.down_proj", "layer 3 MLP"),
        ("post_feedforward_layernorm", "layer 3"),
    ],
)
def test_the_first_tensor_that_is_wrong_is_named(part, first):
    def change(model):
        module = model.layers[3]
        for name in part.split("."):
            module = module[name]
        module.weight = module.weight * 1.001

    assert verdict.first_beyond(judged(change)) == first


@pytest.mark.parametrize("part", ["switch_glu.down_proj", "switch_glu.gate_proj"])
def test_experts_are_seen_apart(part):
    def change(model):
        module = model.layers[1].experts
        for name in part.split("."):
            module = module[name]
        module.weight = module.weight * 1.001

    assert verdict.first_beyond(judged(change, cases.Case("moe", "text"))) == "layer 1 experts"


def test_per_layer_inputs_and_shared_keys_are_seen():
    def change(model):
        inner = model.language_model.model
        inner.per_layer_projection_norm.weight = inner.per_layer_projection_norm.weight * 1.001

    case = cases.Case("e2b", "text")
    assert verdict.first_beyond(judged(change, case)) == "layer 0 per-layer input"

    def change_keys(model):
        norm = model.layers[4].self_attn.k_norm
        norm.weight = norm.weight * 1.001

    found = judged(change_keys, case)
    beyond = [name for name, tensor in found.items() if verdict.is_beyond(tensor)]
    assert beyond[:2] == ["layer 4 attention", "layer 4 shared keys"]
    assert "layer 4 shared values" not in beyond


def test_the_position_is_where_it_begins():
    size, width = [40, 192, 1e-6, 1e-6, 1e-2, 1e-2], 192
    truth = np.random.default_rng(0).normal(size=(40, width)).astype(np.float32)
    wrong = truth.copy()
    wrong[23:] += 0.1
    kept = truth.ravel()[cases.sampled(40, width)]
    found = limits.judge(size, kept, np.arange(40), wrong, "float32")
    assert found["position"] == 23 and found["violations"] > found["allowed"]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_number_is_beyond_every_limit(wrong):
    truth = np.ones(512, np.float32)
    values = np.ones((1, 512), np.float32)
    values[0, 5] = wrong
    found = limits.judge([1, 512, 1, 1, 1, 1], truth, np.arange(1), values, "bfloat16")
    assert verdict.is_beyond(found) and found["violations"] == 1


def test_a_tensor_of_another_width_is_beyond_every_limit():
    found = limits.judge(
        [2, 8, 1, 1, 1, 1], np.ones(16), np.arange(2), np.ones((2, 4), np.float32), "float32"
    )
    assert verdict.is_beyond(found)


def test_a_tapped_model_says_the_same():
    ids = mx.array([[200, 300, 400]])
    model = mlx_lm.model(CASE)
    before = model(ids)
    taps.tap(model)
    assert mx.array_equal(before, model(ids))


@pytest.mark.parametrize("word", ["mlx-lm", "dense", "cached", "float32"])
def test_a_word_leaves_out_the_rest(word):
    hosts, wanted, dtypes = trace.choose([word])
    assert {
        "mlx-lm": hosts == ["mlx_lm"],
        "dense": {case.shape for case in wanted} == {"dense"},
        "cached": {case.way for case in wanted} == {"cached"},
        "float32": dtypes == ["float32"],
    }[word]


@pytest.mark.parametrize("words", [["e3b"], ["mlx_lm", "sound"], ["moe", "sound"]])
def test_words_that_leave_nothing_are_an_error_of_one_line(words, capsys):
    assert command_line.main(["trace", *words]) == 2
    printed, said = capsys.readouterr()
    assert (printed, said.count("\n")) == ("", 1)


def test_a_picture_that_cannot_be_written_is_known_at_once(capsys, tmp_path):
    assert command_line.main(["trace", "--plot", str(tmp_path / "none" / "a.png")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["--reference", "here"],
        ["--model", "no/such-model"],
        ["--model", ".", "--reference", "no/such-model"],
        ["--model", ".", "dense"],
        ["--model", "."],
    ],
)
def test_a_model_that_cannot_be_traced_is_an_error_of_one_line(words, capsys, monkeypatch):
    there = checkpoint.find_spec
    monkeypatch.setattr(checkpoint, "find_spec", lambda n: None if n == "torch" else there(n))
    assert command_line.main(["trace", *words]) == 2
    printed, said = capsys.readouterr()
    assert (printed, said.count("\n")) == ("", 1)
    if words == ["--model", "."]:
        assert "pip install 'mlx-gemma4-patches[trace]'" in said


ROW = {
    **{"host": "mlx_lm", "shape": "e2b", "way": "text", "dtype": "float32"},
    "stock": {
        "tensors": {
            "embeddings": {"error": 1e-7, "limit": 1e-6, "position": None},
            "layer 0": {"error": 0.2, "limit": 1e-5, "position": 5},
        }
    },
    "patched": {"tensors": {"embeddings": {"error": 1e-7, "limit": 1e-6, "position": None}}},
}


def test_piped_each_case_is_a_line_for_each_mode(monkeypatch, capsys):
    monkeypatch.setattr(trace, "run", lambda *a: iter([ROW]))
    assert command_line.main(["trace"]) == 0
    verdict_line, *lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert verdict_line[1] == "of 1 cases 1 leave the limits without the patches, none with them"
    assert lines == [
        ["mlx_lm", "e2b", "text", "float32", "stock", "layer 0, token 5 on: 2e+04 x the limit"],
        ["mlx_lm", "e2b", "text", "float32", "patched", "0.10 of the limit"],
    ]


def test_a_case_that_fails_with_the_patches_is_a_failure(monkeypatch, capsys):
    row = {**ROW, "patched": {"error": "ValueError: no"}}
    monkeypatch.setattr(trace, "run", lambda *a: iter([row]))
    assert command_line.main(["trace", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == [row]
