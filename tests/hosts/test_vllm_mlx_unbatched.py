"""vllm-mlx without continuous batching, on questions about images."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from types import SimpleNamespace

import mlx.core as mx
import pytest

from mlx_gemma4_patches.hosts.vllm_mlx import unbatched
from tests.hosts import batching, metal
from tests.hosts.contract import PatchContract, patched

pytest.importorskip("vllm_mlx")

CACHE, REASON, TEMPERATURE = (
    f"vllm_mlx.{name}" for name in ("image_cache", "finish_reason", "temperature")
)


class TestImageCache(PatchContract):
    id = CACHE

    def untouched(self):
        """The manager of the cache, and a model that is no Gemma 4."""
        from vllm_mlx.mllm_cache import MLLMCacheManager

        manager = MLLMCacheManager()
        manager.store_cache(["an image"], "hi", ["keys and values"], num_tokens=3)
        found = [manager.fetch_cache([name], "hi") for name in ("an image", "another")]
        with unbatched.model(_answering, enable_cache=True) as model:
            model.model.config.model_type = "qwen3_vl"
            model._prepare_images = lambda images: images
            model._cache_manager.store_cache(["an image"], "hi", ["keys and values"], num_tokens=3)
            said = [vars(model.generate("hi", ["an image"])) for _ in range(2)]
            return found, manager.get_stats(), said, model.get_cache_stats()


def _answering(*args, **how):
    return SimpleNamespace(text="so", prompt_tokens=1, generation_tokens=1)


def test_the_manager_of_the_cache_finds_what_it_was_given() -> None:
    from vllm_mlx.mllm_cache import MLLMCacheManager

    manager = MLLMCacheManager()
    manager.store_cache(["an image"], "hi", ["keys and values"], num_tokens=3)
    with patched(CACHE):
        assert manager.fetch_cache(["an image"], "hi") == (["keys and values"], True)
        assert manager.get_stats()["hits"] == 1


class TestFinishReason(PatchContract):
    id = REASON

    def untouched(self):
        """Fewer tokens than are allowed."""

        def generate(*args, max_tokens, **how):
            return SimpleNamespace(text="so", prompt_tokens=1, generation_tokens=max_tokens - 1)

        return vars(unbatched.answer(generate, max_tokens=2))


class TestTemperature(PatchContract):
    id = TEMPERATURE

    def untouched(self):
        """What else mlx-vlm is told."""
        told = []

        def generate(*args, **how):
            told.append({k: v for k, v in how.items() if k not in ("temp", "sampler")})
            return SimpleNamespace(text="so", prompt_tokens=1, generation_tokens=1)

        unbatched.answer(generate, temperature=0.25, max_tokens=3)
        return [sorted(how) for how in told], [how["max_tokens"] for how in told]


@contextlib.contextmanager
def _model(tmp_path, monkeypatch):
    """Yields ``MLXMultimodalLM``, loaded."""
    monkeypatch.setattr(mx.fast, "metal_kernel", mx.fast.metal_kernel)  # to be put back
    metal.stand_in()
    host = importlib.import_module("vllm_mlx.models.mllm")
    folder = batching.save("dense", tmp_path / "gemma-4-tiny")
    made = host.MLXMultimodalLM(str(folder))
    made.load()
    with patched(CACHE), patched(REASON), patched(TEMPERATURE):
        yield made


def test_an_image_is_answered_alike_streamed_or_not_and_each_time(tmp_path, monkeypatch) -> None:
    with _model(tmp_path, monkeypatch) as model:
        asked = [batching.message("hi", batching.image(0))]
        how = {"max_tokens": 6, "temperature": 0.0}
        whole = [model.chat(asked, **how).text for _ in range(2)]
        streams = [list(model.stream_chat(asked, **how)) for _ in range(2)]
        texts = ["".join(output.text for output in stream) for stream in streams]
        assert [text.strip() for text in whole + texts] == [whole[0].strip()] * 4
        assert model.chat(asked, **how).finish_reason == "length"
        assert [stream[-1].finish_reason for stream in streams] == ["length"] * 2


def test_a_question_is_answered_at_the_temperature_asked_for(tmp_path, monkeypatch) -> None:
    with _model(tmp_path, monkeypatch) as model:
        asked = [batching.message("hi", batching.image(0))]
        hot = {"max_tokens": 6, "temperature": 5.0, "top_p": 1.0}
        assert len({model.chat(asked, **hot).text for _ in range(4)}) == 4


def test_the_engine_passes_the_reason_on(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(mx.fast, "metal_kernel", mx.fast.metal_kernel)
    metal.stand_in()
    from vllm_mlx.engine.simple import SimpleEngine

    async def run():
        folder = batching.save("dense", tmp_path / "gemma-4-tiny")
        engine = SimpleEngine(str(folder), force_mllm=True)
        await engine.start()
        try:
            asked = [batching.message("hi", batching.image(0))]
            return await engine.chat(asked, max_tokens=4, temperature=0.0)
        finally:
            await engine.stop()

    with patched(REASON):
        answer = asyncio.run(run())
    assert (answer.completion_tokens, answer.finish_reason) == (4, "length")
