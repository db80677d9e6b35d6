"""vllm-mlx's engine of continuous batching, in this process."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import inspect
import io
import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from packaging.version import Version
from PIL import Image
from tokenizers import Tokenizer

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model
from tests.hosts import metal, tokenizer

PATIENCE = 60  # seconds for an answer

# the text alone: what a test says is the whole prompt, and no two prompts begin alike
PLAIN_TEMPLATE = """{% for message in messages -%}
{% if message.content is string %}{{ message.content }}{% else -%}
{% for part in message.content %}{{ part.text or '<|' ~ part.type ~ '|>' }}{% endfor %}{% endif -%}
{% endfor %}"""


def skip_what_cannot_batch_text() -> None:
    """Skip on releases whose engines of text models fail beside what is installed."""
    from mlx_lm.generate import BatchGenerator

    release = metadata.version("vllm-mlx")
    parameters = inspect.signature(BatchGenerator).parameters
    if release == "0.2.7" and "prompt_progress_callback" not in parameters:
        pytest.skip("vllm-mlx 0.2.7 hands this mlx-lm an argument that it does not know")
    if release in ("0.2.8", "0.2.9") and Version(mx.__version__) >= Version("0.32"):
        pytest.skip("its steps change threads, which this mlx does not allow")


def save(shape: str, folder: Path, template: str | None = None) -> Path:
    """A tiny checkpoint with tokenizer and processor; an image of any size has few soft tokens."""
    tiny.save(shape, folder, shared_kv=shape == "e2b")
    tokenizer.save(folder)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    file = folder / "processor_config.json"
    settings = json.loads(file.read_text())
    settings["image_processor"]["max_soft_tokens"] = 9
    file.write_text(json.dumps(settings))
    return folder


def image(seed: int, height: int = 3, width: int = 3) -> str:
    """A data URL of random pixels, ``height`` x ``width`` soft tokens."""
    pixels = (tiny.image(height, width, seed) * 255).astype(np.uint8).transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def message(text: str, *images: str) -> dict[str, Any]:
    """A user's message: data URLs of images, then the text."""
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def alone(shape: str, folder: Path, prompt: str, count: int) -> str:
    """What mlx-vlm's model of one shape says after a prompt, greedily, ``count`` tokens."""
    language_model = model(shape).language_model
    cache, new, made = language_model.make_cache(), tokenizer.ids(prompt), []
    for _ in range(count):
        new = [mx.argmax(language_model(mx.array([new]), cache=cache).logits[0, -1]).item()]
        made += new
    return Tokenizer.from_file(str(folder / "tokenizer.json")).decode(made).strip()


class Engine:
    def __init__(self, engine: Any, loop: asyncio.AbstractEventLoop):
        self.engine = engine
        self._loop = loop

    def answer(self, *messages: dict[str, Any], **how: Any) -> Any:
        """vllm-mlx's GenerationOutput."""
        return self.answers(list(messages), **how)[0]

    def answers(
        self, *conversations: list[dict[str, Any]], errors: bool = False, **how: Any
    ) -> list[Any]:
        """As ``answer``, for conversations that are asked about at once.

        With ``errors``, an error of one is its answer.
        """

        async def ask():
            requests = [
                self.engine.chat(conversation, **{"max_tokens": 12, "temperature": 0.0, **how})
                for conversation in conversations
            ]
            asked = asyncio.gather(*requests, return_exceptions=errors)
            return await asyncio.wait_for(asked, PATIENCE)

        return self._loop.run_until_complete(ask())

    def prefix_hits(self) -> int | None:
        """How often a prefix was found; None without a prefix cache."""
        if self.engine._engine is not None:
            cache = self.engine._engine.engine.scheduler.memory_aware_cache
        else:
            generator = self.engine._mllm_scheduler.batch_generator  # made for the first request
            cache = getattr(generator, "prefix_cache", None)
        return None if cache is None else cache.get_stats()["hits"]


@contextlib.contextmanager
def engine(folder: Path, multimodal: bool = True, **settings: Any) -> Iterator[Engine]:
    """The engine with the model in ``folder``; ``settings`` are those of its scheduler."""
    kernel = mx.fast.metal_kernel
    metal.stand_in()
    try:
        from vllm_mlx.engine.batched import BatchedEngine
        from vllm_mlx.scheduler import SchedulerConfig

        config = SchedulerConfig(**settings)
        made = BatchedEngine(str(folder), scheduler_config=config, force_mllm=multimodal)
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(made.start())
            yield Engine(made, loop)
        finally:
            loop.run_until_complete(made.stop())
            loop.close()
    finally:
        mx.fast.metal_kernel = kernel
