"""``kv_bits`` quantizes the full-attention layers of Gemma 4, and the sliding ones are said."""

from __future__ import annotations

import importlib
import logging

import mlx.core as mx
import pytest

from mlx_gemma4_patches.doctor import other_models
from mlx_gemma4_patches.gemma4 import kv_bits, tiny
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model as tiny_model
from tests.hosts import answers
from tests.hosts.contract import PatchContract, patched, stock
from tests.hosts.server import serve

ID = "mlx_vlm.kv_bits"
TEXT = tiny.prompt(60)

pytest.importorskip("mlx_vlm.models.gemma4", reason="no Gemma 4 in this mlx-vlm")


@pytest.fixture(scope="module", params=tiny.SHAPES)
def loaded(request, tmp_path_factory):
    return answers.load(request.param, tmp_path_factory.mktemp(request.param))


class TestKvBits(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _a_model(self, tmp_path):
        self.folder = tmp_path

    def untouched(self):
        from mlx_vlm.models.cache import RotatingKVCache

        other = other_models.gemma3n_vlm()
        caches = other.make_cache()
        logits = [other(mx.array([TEXT[:20]]), cache=caches).logits]
        with pytest.raises(NotImplementedError) as error:
            next(cache for cache in caches if isinstance(cache, RotatingKVCache)).to_quantized()
        said = answers.load("e2b", self.folder).answer(TEXT[:20])
        return [said, logits, str(error.value)]


@pytest.mark.parametrize("start", [0, 25])  # in the prompt, and in mid-generation
def test_the_answer_is_that_of_the_unquantized_cache(loaded, start):
    how = {"kv_bits": 8, "kv_group_size": 64, "quantized_kv_start": start}
    text = loaded.model.language_model
    expected, caches = loaded.answer(TEXT[:20]), text.make_cache()
    if start and text.config.num_kv_shared_layers and len(caches) == len(text.layers):
        pytest.xfail("mlx-vlm 0.4.3 also makes caches for the layers that share; they stay empty")
    with stock(ID), pytest.raises(NotImplementedError):
        loaded.answer(TEXT[:20], **how)
    with patched(ID):
        said = loaded.answer(TEXT[:20], prompt_cache=caches, **how)
    # rounding to 8 bits may turn a close decision, but not before it has begun
    begun = max(0, start - 20)
    assert said[: begun + 4] == expected[: begun + 4]
    kinds = {(hasattr(cache, "max_size"), type(cache).__name__) for cache in caches}
    # since 0.6.6 the last cache stays as it is
    assert {(True, "RotatingKVCache"), (False, "QuantizedKVCache")} <= kinds
    assert (True, "QuantizedKVCache") not in kinds


@pytest.mark.parametrize("shape", ["e2b", "dense"])  # rounding may choose other experts
def test_logits_move_by_no_more_than_8_bits_explain(shape):
    model = tiny_model(shape).language_model
    following, both = mx.array([TEXT[40:]]), []
    with patched(ID):
        for bits in (None, 8):
            caches = model.make_cache()
            mx.eval(model(mx.array([TEXT[:40]]), cache=caches).logits)
            if bits:
                caches = [cache.to_quantized(group_size=64, bits=bits) for cache in caches]
            both.append(model(following, cache=caches).logits)
    moved = mx.abs(both[0] - both[1]).max().item()
    assert 0 < moved < 0.5  # of a cap at 30; 4-bit rounding would be 16 times as coarse


def test_it_says_once_what_stays_unquantized(loaded, caplog):
    kv_bits.say.cache_clear()
    with patched(ID), caplog.at_level(logging.WARNING, "mlx_gemma4_patches"):
        for _ in range(2):
            loaded.answer(TEXT[:20], kv_bits=8, quantized_kv_start=0)
    (line,) = [r.getMessage() for r in caplog.records if "kv_bits" in r.getMessage()]
    assert "sliding_attention" in line and "16" in line


def test_a_conversation_in_a_prompt_cache_goes_on(loaded):
    new_state = getattr(importlib.import_module("mlx_vlm.generate"), "PromptCacheState", None)
    if new_state is None:
        pytest.skip("this mlx-vlm keeps no prompt caches")
    how = {"kv_bits": 8, "quantized_kv_start": 0}
    with patched(ID):
        state = new_state()
        said = loaded.answer(TEXT[:20], 6, prompt_cache_state=state, **how)
        grown = TEXT[:20] + said + TEXT[40:42]
        again = loaded.answer(grown, 4, prompt_cache_state=state, **how)
        assert again == loaded.answer(grown, 4, **how)


def test_the_scheme_turboquant_is_as_it_was(tmp_path):
    loaded = answers.load("dense", tmp_path)
    how = {"kv_bits": 4, "kv_quant_scheme": "turboquant", "quantized_kv_start": 0}
    with stock(ID):
        expected = loaded.answer(TEXT[:20], **how)
    with patched(ID):
        assert loaded.answer(TEXT[:20], **how) == expected


def test_the_server_answers(tmp_path):
    model = answers.save("e2b", tmp_path)
    question = {"role": "user", "content": "a question that is longer than the window is"}
    body = {"model": str(model), "messages": [question], "max_tokens": 4, "temperature": 0}
    said = []
    for options in ([], ["--kv-bits", "8", "--quantized-kv-start", "0"]):
        with patched(ID), serve("mlx_vlm", model, *options) as post:
            answer = post("/v1/chat/completions", body)
            said.append(answer["choices"][0]["message"]["content"])
    assert said[0] == said[1]


def test_the_command_line_answers(tmp_path, capsys, monkeypatch):
    main = importlib.import_module("mlx_vlm.generate").main
    model = answers.save("e2b", tmp_path)
    prompt = ["--prompt", "a prompt longer than the window", "--max-tokens", "4"]
    said = []
    for bits in ([], ["--kv-bits", "8", "--quantized-kv-start", "0"]):
        command = ["mlx_vlm.generate", "--model", str(model), *prompt, "--temperature", "0", *bits]
        monkeypatch.setattr("sys.argv", command)
        with patched(ID):
            main()
        printed = capsys.readouterr().out.split("=" * 10)
        said.append(printed[min(1, len(printed) - 1)])  # in between, before the numbers
    assert said[0] == said[1]
