"""``kv_bits`` quantizes the full-attention layers of Gemma 4 and says what it leaves alone."""

from __future__ import annotations

import logging

import mlx.core as mx
import pytest

from mlx_gemma4_patches.doctor import other_models
from mlx_gemma4_patches.gemma4 import kv_bits, tiny
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from tests.hosts import tokenizer
from tests.hosts.contract import PatchContract, patched, stock
from tests.hosts.server import serve

ID = "mlx_lm.kv_bits"
LIMIT = 12

pytest.importorskip("mlx_lm.models.gemma4", reason="no Gemma 4 in this mlx-lm")


def generate(model, prompt, caches=None, **how):
    """The tokens of plain greedy decoding, and the caches it leaves."""
    from mlx_lm.generate import generate_step
    from mlx_lm.models.cache import make_prompt_cache

    caches = caches or make_prompt_cache(model)
    steps = generate_step(mx.array(prompt), model, max_tokens=LIMIT, prompt_cache=caches, **how)
    return [token for token, _ in steps], caches


class TestKvBits(PatchContract):
    id = ID

    def untouched(self):
        from mlx_lm.models.cache import RotatingKVCache

        prompt = tiny.prompt(20)
        said = [generate(text_model(shape), prompt)[0] for shape in tiny.SHAPES]
        how = {"kv_bits": 8, "kv_group_size": 32, "quantized_kv_start": 4}
        said.append(generate(other_models.llama(), prompt, **how)[0])
        with pytest.raises(NotImplementedError) as error:
            RotatingKVCache(16).to_quantized()
        return [*said, str(error.value)]


@pytest.mark.parametrize("shape", tiny.SHAPES)
@pytest.mark.parametrize("start", [0, 25])  # in the prompt, and in mid-generation
def test_the_answer_is_that_of_the_unquantized_cache(shape, start):
    model, prompt = text_model(shape), tiny.prompt(20)
    how = {"kv_bits": 8, "kv_group_size": 64, "quantized_kv_start": start}
    expected, _ = generate(model, prompt)
    with stock(ID), pytest.raises(NotImplementedError):
        generate(model, prompt, **how)
    with patched(ID):
        said, caches = generate(model, prompt, **how)
    # rounding to 8 bits may turn a close decision, but not before it has begun
    begun = max(0, start - len(prompt))
    assert said[: begun + 4] == expected[: begun + 4]
    kinds = ["QuantizedKVCache" if i % 3 == 2 else "RotatingKVCache" for i in range(6)]
    assert [type(cache).__name__ for cache in caches] == kinds


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_logits_move_by_no_more_than_8_bits_explain(shape):
    model, prompt = text_model(shape), mx.array([tiny.prompt(40)])
    _, plain = generate(model, tiny.prompt(40, seed=1))
    with patched(ID):
        _, quantized = generate(model, tiny.prompt(40, seed=1), kv_bits=8, quantized_kv_start=10**6)
        quantized = [
            c.to_quantized(group_size=64, bits=8) if i % 3 == 2 else c
            for i, c in enumerate(quantized)
        ]
        moved = mx.abs(model(prompt, cache=quantized) - model(prompt, cache=plain)).max().item()
    assert 0 < moved < 0.5  # of a cap at 30; 4-bit rounding would be 16 times as coarse


def test_it_says_once_what_stays_unquantized(caplog):
    kv_bits.say.cache_clear()
    model = text_model("e2b")
    with patched(ID), caplog.at_level(logging.WARNING, "mlx_gemma4_patches"):
        for _ in range(2):
            generate(model, tiny.prompt(20), kv_bits=8, quantized_kv_start=0)
    (line,) = [r.getMessage() for r in caplog.records if "kv_bits" in r.getMessage()]
    assert "sliding_attention" in line and "16" in line


def test_a_long_conversation_takes_less_than_half_the_memory():
    model, prompt = text_model("dense"), tiny.prompt(1500)
    with patched(ID):
        _, plain = generate(model, prompt)
        _, quantized = generate(model, prompt, kv_bits=8, quantized_kv_start=0)
    sizes = [sum(c.nbytes for c in caches[2::3]) for caches in (plain, quantized)]
    assert sizes[1] / sizes[0] < (8 + 1) / 32 + 0.05  # from float32; a scale and a bias for 64
    assert sum(c.nbytes for c in quantized) < 0.4 * sum(c.nbytes for c in plain)


def test_a_conversation_goes_on_from_a_quantized_cache():
    model, first, second = text_model("e2b"), tiny.prompt(20), tiny.prompt(7, seed=1)
    how = {"kv_bits": 8, "quantized_kv_start": 0}
    with patched(ID):
        said, caches = generate(model, first, **how)
        again, _ = generate(model, second, caches=caches, **how)
        whole, _ = generate(model, first + said + second, **how)
    assert again[:4] == whole[:4]


def test_the_server_answers(tmp_path):
    import mlx_lm.server

    model = tiny.save("e2b", tmp_path)
    tokenizer.save(model)
    body = {"prompt": "a prompt longer than the window", "max_tokens": 4, "temperature": 0}
    options = ["--kv-bits", "8", "--quantized-kv-start", "0"]
    if "kv_bits" not in mlx_lm.server.ResponseGenerator._serve_single.__code__.co_names:
        options = []  # no such option in this release
    with patched(ID), serve("mlx_lm", model, *options) as post:
        answer = post("/v1/completions", body)
        assert answer["usage"]["completion_tokens"] > 0  # some random tokens end the answer
    said = (model / "server.log").read_text().count("stay unquantized")
    assert said == (1 if options else 0)


def test_the_command_line_answers(tmp_path, capsys, monkeypatch):
    from mlx_lm.cli import main

    model = tiny.save("e2b", tmp_path)
    tokenizer.save(model)
    prompt = ["--prompt", "a prompt longer than the window", "--ignore-chat-template"]
    how = ["--max-tokens", "4", "--temp", "0", "--verbose", "True"]
    said = []
    for bits in ([], ["--kv-bits", "8", "--quantized-kv-start", "0"]):
        command = ["mlx_lm", "generate", "--model", str(model), *prompt, *how, *bits]
        monkeypatch.setattr("sys.argv", command)
        with patched(ID):
            main()
        said.append(capsys.readouterr().out.split("=" * 10)[1])
    assert said[0] == said[1]
