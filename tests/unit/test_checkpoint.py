"""The checkpoint doctor finds what is wrong, reads no weights, and survives what it reads."""

from __future__ import annotations

import json
import os
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_gemma4_patches.doctor import checkpoint, checkpoint_files, checkpoint_template
from tests.hosts import chat
from tests.unit.checkpoints import TEMPLATE, change, huge, save, write_weights

SECRET = "import os; os.mkdir('executed')"


def found(folder, level="problem"):
    """``(subject, found)`` of the findings of one level."""
    findings = checkpoint.examine(folder, 4096)["findings"]
    return [(f["subject"], f["found"]) for f in findings if f["level"] == level]


@pytest.fixture
def folder(tmp_path):
    return save("dense", tmp_path / "model")


@pytest.mark.parametrize("shape", ["e2b", "moe", "dense"])
def test_a_checkpoint_that_is_right_has_no_problem_and_no_warning(tmp_path, shape):
    folder = save(shape, tmp_path / "model")
    assert found(folder) == [] and found(folder, "warning") == []
    told = checkpoint.examine(folder, 4096)
    assert told["sound"]
    assert told["stop_tokens"]["united"] == [1, 106, 50]
    assert told["template"]["generation"] == checkpoint_template.JULY


def test_the_memory_of_a_conversation_is_that_of_the_hosts_caches(tmp_path):
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache

    from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model

    told = checkpoint.examine(save("dense", tmp_path / "model"), 512)["memory"]
    model = text_model("dense")
    model.set_dtype(mx.bfloat16)
    cache = make_prompt_cache(model)
    for _ in range(4):  # in steps, as a window only then is no longer than it must be
        model(mx.zeros((1, 127), mx.int32), cache=cache)
        model(mx.zeros((1, 1), mx.int32), cache=cache)
    mx.eval([layer.state for layer in cache])
    assert told["kv_cache"] == sum(layer.nbytes for layer in cache)


def test_62_gigabytes_are_examined_without_reading_them(tmp_path):
    size = huge(tmp_path / "huge")
    assert size > 61e9
    tracemalloc.start()
    told = checkpoint.examine(tmp_path / "huge", 32768)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (told["shape"], told["sound"]) == ("31B", True)
    assert told["memory"]["weights"] == pytest.approx(size, rel=1e-4)
    assert peak < 50e6


def test_the_hosts_say_whether_they_load_it(tmp_path):
    folder = save("dense", tmp_path / "model")
    assert checkpoint.load("mlx_lm", str(folder)) is None
    change(folder, "config.json", text_config={**_text(folder), "hidden_size": 256})
    assert "Expected shape" in checkpoint.load("mlx_lm", str(folder))


def _text(folder):
    return json.loads((folder / "config.json").read_text())["text_config"]


def truncated_header(folder):
    os.truncate(folder / "model.safetensors", 100)


def truncated_weights(folder):
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 9)


def no_safetensors(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)


def deep_header(folder):
    text = b"[" * 100_000
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)


def absurd_shape(folder):
    header = {"a": {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 8]}}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)


def missing_shard(folder):
    index = {"weight_map": {"a": "model-00002-of-00002.safetensors"}}
    (folder / checkpoint_files.INDEX).write_text(json.dumps(index))


def wrong_index(folder):
    index = {"weight_map": {"no.such.tensor": "model.safetensors"}}
    (folder / checkpoint_files.INDEX).write_text(json.dumps(index))


def index_that_leads_away(folder):
    index = {"weight_map": {"a": "../../etc/passwd"}}
    (folder / checkpoint_files.INDEX).write_text(json.dumps(index))


def broken_json(folder):
    (folder / "config.json").write_text('{"model_type": ')


def no_object(folder):
    (folder / "config.json").write_text("[1, 2]")


def deep_json(folder):
    (folder / "config.json").write_text('{"a":' * 100_000)


def no_config(folder):
    (folder / "config.json").unlink()


def symlink_loop(folder):
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("config.json")


def pipe(folder):
    (folder / "generation_config.json").unlink()
    os.mkfifo(folder / "generation_config.json")


def absurd_layers(folder):
    change(folder, "config.json", text_config={**_text(folder), "num_hidden_layers": 10**9})


def strange_layers(folder):
    change(folder, "config.json", text_config={**_text(folder), "layer_types": [{}] * 6})


def strange_sizes_by_layer(folder):
    change(folder, "config.json", text_config={**_text(folder), "per_layer_config": {"x": 1}})


def endless_template(folder):
    (folder / "chat_template.jinja").write_text(
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    )


def greedy_template(folder):
    (folder / "chat_template.jinja").write_text("{{ 'x' * 10 ** 11 }}")


def broken_template(folder):
    (folder / "chat_template.jinja").write_text("{% if %}")


DAMAGE = {
    truncated_header: ("files", "header is cut off"),
    truncated_weights: ("files", "behind the file's end"),
    no_safetensors: ("files", "no safetensors file"),
    deep_header: ("files", "nested too deeply"),
    absurd_shape: ("files", "makes no sense"),
    missing_shard: ("files", "not in the folder"),
    wrong_index: ("files", "where no such tensor is"),
    index_that_leads_away: ("files", "names no files of this folder"),
    broken_json: ("files", "config.json cannot be read"),
    no_object: ("files", "no object"),
    deep_json: ("files", "nested too deeply"),
    no_config: ("files", "there is no config.json"),
    symlink_loop: ("files", "config.json cannot be read"),
    pipe: ("files", "no regular file"),
    absurd_layers: ("config", "num_hidden_layers is 1000000000"),
    strange_layers: ("config", "layer_types"),
    strange_sizes_by_layer: ("config", "per_layer_config"),
    endless_template: ("chat template", "no progress"),
    greedy_template: ("chat template", "refuses a plain conversation"),
    broken_template: ("chat template", "cannot be rendered"),
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_what_is_damaged_or_hostile_is_a_finding(folder, damage, monkeypatch):
    monkeypatch.setattr(checkpoint_template, "_SECONDS", 3)
    damage(folder)
    subject, words = DAMAGE[damage]
    assert any(s == subject and words in text for s, text in found(folder)), found(folder)


def test_nothing_of_it_is_executed(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (folder / "evil.py").write_text(SECRET)
    (folder / "pytorch_model.bin").write_bytes(b"cos\nmkdir\n(S'executed'\ntR.")
    change(folder, "config.json", model_file="evil.py", auto_map={"AutoConfig": "evil.Config"})
    said = " ".join(text for _, text in found(folder, "warning"))
    assert "model_file" in said and "pytorch_model.bin" in said
    assert checkpoint.load("mlx_lm", str(folder)) is None
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("name", "values", "level", "words"),
    [
        ("generation_config.json", {"eos_token_id": 1}, "problem", "<|tool_response> (50) stops"),
        ("config.json", {"model_type": "llama"}, "problem", "model_type is 'llama'"),
        ("config.json", {"image_token_id": 7}, "problem", "image_token_id is 7"),
        ("config.json", {"audio_config": {"a": 1}}, "warning", "audio_config"),
        ("config.json", {"model_type": "gemma4_unified"}, "warning", "does not suppress"),
    ],
)
def test_what_is_wrong_with_tokens_and_config_is_found(folder, name, values, level, words):
    change(folder, name, **values)
    assert any(words in text for _, text in found(folder, level)), found(folder, level)


def lenient(template):
    """Takes arguments that are no object, and leaves them out."""
    kept = "({} if call.function.arguments is string else call.function.arguments)"
    template = template.replace("arguments is not mapping", "arguments is none")
    return template.replace("call.function.arguments | dictsort", f"{kept} | dictsort")


@pytest.mark.parametrize(
    ("template", "generation"),
    [
        (TEMPLATE, checkpoint_template.JULY),
        (lenient(chat.TEMPLATE), checkpoint_template.APRIL),
        (lenient(TEMPLATE), checkpoint_template.OTHER),
        (
            lenient(TEMPLATE).replace("message.role == 'tool'", "message.role == 'nobody'"),
            checkpoint_template.LAUNCH,
        ),
    ],
)
def test_a_template_is_told_by_what_it_renders(folder, template, generation):
    (folder / "chat_template.jinja").write_text(template)
    assert checkpoint.examine(folder, 1)["template"]["generation"] == generation


def test_packed_weights_are_told_by_bits_and_a_coarse_table_is_warned_of(tmp_path):
    folder = save("e2b", tmp_path / "model")
    name = "model.language_model.embed_tokens_per_layer"
    tensors = {
        f"{name}.weight": ("U32", (512, 576 * 4 // 32)),
        f"{name}.scales": ("BF16", (512, 9)),
        f"{name}.biases": ("BF16", (512, 9)),
        "model.language_model.embed_tokens.weight": ("BF16", (512, 192)),
    }
    write_weights(folder / "model.safetensors", tensors)
    told = checkpoint.examine(folder, 1)
    assert told["weights"]["per-layer table"]["stored_as"] == "4-bit, groups of 64"
    texts = [f["found"] for f in told["findings"]]
    assert "the per-layer table is stored as 4-bit, groups of 64" in texts
    assert any("says nothing of a quantization" in text for text in texts)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
_KEYS = (
    *("layer_types", "num_kv_shared_layers", "per_layer_config", "head_dim", "eos_token_id"),
    *("num_key_value_heads", "sliding_window", "vocab_size", "hidden_size", "quantization"),
    *("model_type", "vision_config", "audio_config", "text_config", "image_token_id", "auto_map"),
)


@settings(max_examples=60)
@given(outer=st.dictionaries(st.sampled_from(_KEYS), _json), inner=_json)
def test_any_config_is_read_without_a_traceback(tmp_path_factory, outer, inner):
    folder = tmp_path_factory.mktemp("fuzz")
    config = {"model_type": "gemma4", "text_config": inner, **outer}
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"):
        config.setdefault(key, 4)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(outer))
    (folder / "generation_config.json").write_text(json.dumps(outer))
    assert checkpoint.examine(folder, 16)["findings"]


@given(st.binary(max_size=200), st.integers(0, 1 << 64 - 1))
def test_any_bytes_are_no_traceback_as_weights(tmp_path_factory, data, length):
    file = tmp_path_factory.mktemp("fuzz") / "model.safetensors"
    for content in (data, length.to_bytes(9, "little")[:8] + data):
        file.write_bytes(content)
        checkpoint_files.Folder(file.parent)


def test_a_model_is_found_by_its_name_in_the_local_cache(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    cache = tmp_path / "models--google--gemma-4"
    folder = save("dense", cache / "snapshots" / "0123abc")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0123abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert checkpoint_files.locate("google/gemma-4") == folder
    assert checkpoint.examine(folder, 1)["name"] == "google/gemma-4"
    assert checkpoint_files.locate("google/no-such") is None
    assert checkpoint_files.locate("../../x y") is None
