"""vllm-mlx's real server in each of its modes: transformers' text, for whoever asks when."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hosts import batching, checkpoints, load, texts
from tests.hosts.server import serve

pytest.importorskip("vllm_mlx")

_MODES = {
    "batches of images and text": ("e2b", ["--continuous-batching", "--mllm"]),
    "batches of images and text, full attention": ("dense", ["--continuous-batching", "--mllm"]),
    "batches of images and text, quantized prefixes": (
        "dense",
        ["--continuous-batching", "--mllm", "--kv-cache-quantization"],
    ),
    "batches of text": ("dense", ["--continuous-batching"]),
    "images and text, one by one": ("dense", ["--mllm"]),
    "text, one by one": ("dense", []),
}


@pytest.fixture
def model(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[str, Path, list[str]]:
    shape, arguments = _MODES[request.param]
    name = f"gemma-4-{shape}" if "--mllm" in arguments else "text"  # 0.2.7 goes by the name
    folder = batching.save(shape, tmp_path / name, batching.PLAIN_TEMPLATE)
    if "--mllm" not in arguments:
        batching.skip_what_cannot_batch_text()
        checkpoints.change(folder, checkpoints.text_only, checkpoints.text_tensors)
    return shape, folder, arguments


@pytest.mark.parametrize("model", _MODES, indirect=True)
def test_every_answer_is_that_of_transformers(model) -> None:
    shape, folder, arguments = model
    with serve("vllm_mlx", folder, *arguments) as server:
        # without batches it takes one at a time
        texts.check(server, shape, folder, at_once="--continuous-batching" in arguments)


def test_nothing_is_lost_or_crossed_when_many_ask_and_some_leave(tmp_path: Path) -> None:
    folder = batching.save("dense", tmp_path / "gemma-4-tiny", batching.PLAIN_TEMPLATE)
    with serve("vllm_mlx", folder, "--continuous-batching", "--mllm") as server:
        report = load.run(server, folder, count=20, at_once=4)
    assert report.wrong == []
    assert sorted(report.cancelled) == [9, 19]
    assert len(report.answered) == 18
