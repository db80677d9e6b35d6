"""A conversion beside the original in transformers: what is lost is found, in little memory."""

from __future__ import annotations

import json

import mlx.core as mx
import numpy as np
import pytest
import torch
import transformers

from mlx_gemma4_patches import __main__ as command_line
from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.trace import checkpoint, original, verdict
from tests.hosts import checkpoints, tokenizer

PROMPT = "a text that is longer than the window of the tiny models is"


def silent(text):
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Makes the checkpoint of a shape."""

    def make(shape, dtype=mx.bfloat16, quantized=False, tensors=None):
        made = tmp_path_factory.mktemp(shape)
        tiny.save(shape, made, dtype=dtype)
        tokenizer.save(made)
        if quantized:
            checkpoints.change(
                made,
                lambda config: checkpoints.quantization(config, 4),
                lambda weights: checkpoints.quantized(weights, 4),
                "mlx",
            )
        return checkpoints.change(made, tensors=tensors) if tensors else made

    return make


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_layers_that_are_read_one_at_a_time_compute_the_same(folder, shape):
    made, ids = folder(shape, mx.float32), tokenizer.ids(PROMPT)
    streamed, _ = original.computed(made, ids, torch.float32, silent)
    model = transformers.Gemma4ForConditionalGeneration.from_pretrained(made, dtype=torch.float32)
    with torch.no_grad():
        whole = model.eval()(torch.tensor([ids]), output_hidden_states=True)
    assert torch.equal(streamed["embeddings"], whole.hidden_states[0][0])
    assert torch.equal(streamed["layer 2"], whole.hidden_states[3][0])
    assert torch.equal(streamed["final norm"], whole.hidden_states[-1][0])
    assert torch.allclose(streamed["logits"][0], whole.logits[0, -1], atol=1e-5)


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_the_largest_layer_is_all_that_is_in_memory(folder, shape):
    made = folder(shape)
    _, weights = original.computed(made, [200, 300, 400], torch.float32, silent)
    start, sizes, layers = "model.language_model.", {}, {}
    for name, value in mx.load(str(made / "model.safetensors")).items():
        if name.startswith(start) and "embed_tokens" not in name:
            sizes[name.removeprefix(start)] = 4 * value.size
    for name, size in sizes.items():
        if name.startswith("layers."):
            number = name.split(".")[1]
            layers[number] = layers.get(number, 0) + size
    others = sum(size for name, size in sizes.items() if not name.startswith("layers."))
    assert weights.most == max(layers.values()) + others
    assert weights.most < sum(sizes.values()) / 4
    assert weights.held == others


@pytest.mark.parametrize("shape", ["e2b", "dense"])
def test_a_right_conversion_stays_within_the_limits(folder, shape):
    made = folder(shape)
    found = checkpoint.compare(made, None, PROMPT, silent)
    assert verdict.first_beyond(found["tensors"]) is None
    assert (found["host"], found["tokens"], found["quantized"]) == ("mlx_lm", len(PROMPT), False)


def test_mlx_vlm_reads_where_mlx_lm_is_missing(folder, monkeypatch):
    there = checkpoint.find_spec
    monkeypatch.setattr(checkpoint, "find_spec", lambda n: None if n == "mlx_lm" else there(n))
    found = checkpoint.compare(folder("moe", mx.float32), None, PROMPT, silent)
    assert found["host"] == "mlx_vlm" and found["next"][0] == found["next"][1]
    assert verdict.first_beyond(found["tensors"]) is None


def test_the_first_tensor_that_a_conversion_got_wrong_is_named(folder):
    name = "model.language_model.layers.3.self_attn.o_proj.weight"
    right = folder("dense")
    wrong = folder("dense", tensors=lambda weights: {**weights, name: weights[name] * 1.5})
    found = checkpoint.compare(wrong, right, PROMPT, silent)
    assert verdict.first_beyond(found["tensors"]) == "layer 3 attention"
    assert "layer 3" in [name for name, _, _ in found["steepest"]]
    assert command_line.main(["trace", "--model", str(wrong), "--reference", str(right)]) == 1


def test_what_quantization_loses_is_no_failure(folder, capsys):
    right, four_bits = folder("e2b"), folder("e2b", quantized=True)
    how = ["trace", "--model", str(four_bits), "--reference", str(right), "--json"]
    assert command_line.main(how) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["quantized"] and verdict.first_beyond(found["tensors"]) == "embeddings"
    assert command_line.main(how[:3]) == 2
    assert "--reference" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["-v"]])
def test_what_does_not_load_is_an_error_of_one_line(folder, tmp_path, capsys, words):
    (tmp_path / "config.json").write_text("{}")
    assert command_line.main(["trace", "--model", str(tmp_path), *words]) == 2
    printed, said = capsys.readouterr()
    assert (printed, said.count("\n")) == ("", 1)


def test_a_prompt_that_is_too_long_is_an_error_of_one_line(folder, capsys):
    made = str(folder("dense"))
    assert command_line.main(["trace", "--model", made, "--prompt", "long " * 200]) == 2
    assert "the prompt has 1000 tokens" in capsys.readouterr().err


def test_errors_become_a_picture(tmp_path, capsys):
    file = tmp_path / "errors.png"
    command = ["trace", "mlx_lm", "dense", "text", "float32", "--plot", str(file)]
    assert command_line.main(command) == 0
    assert file.read_bytes().startswith(b"\x89PNG")


def test_the_stored_reference_is_what_transformers_computes():
    from mlx_gemma4_patches.trace import cases
    from tests.reference import make_trace

    made, _ = make_trace.make("dense")
    stored = mx.load(str(cases.FOLDER / "dense.safetensors"))
    assert made.keys() == stored.keys()
    for name, value in made.items():
        assert np.allclose(value, np.array(stored[name]), rtol=1e-5, atol=1e-6), name
