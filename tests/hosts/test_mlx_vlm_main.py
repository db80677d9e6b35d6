"""``python -m mlx_vlm.server`` and ``python -m mlx_vlm.generate`` are patched.

Up to 0.5.0 they are files that Python then runs as modules of their own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.gemma4.tool_calls import END
from mlx_gemma4_patches.hosts.mlx_vlm.tool_calls import host_parser
from tests.hosts import sayings, tokenizer
from tests.hosts.chat import QUOTE, TOOLS, call
from tests.hosts.server import serve

pytest.importorskip("mlx_vlm.models.gemma4")


def test_the_answers_of_the_server_are_those_of_the_patched_one(tmp_path: Path) -> None:
    if host_parser() is None:
        pytest.skip("this mlx-vlm leaves Gemma 4's tool calls to mlx-lm")
    folder = sayings.save(tmp_path, [f"{call(f'a:{QUOTE}x {END} }} y{QUOTE}')}there"])
    body = {
        "model": str(folder),
        "messages": [{"role": "user", "content": sayings.ask(0)}],
        "tools": TOOLS,
        "max_tokens": 60,
        "temperature": 0.0,
    }
    with serve("mlx_vlm", folder, program="tests.hosts.sayings") as post:
        message = post("/v1/chat/completions", body)["choices"][0]["message"]
    (made,) = message["tool_calls"]
    assert json.loads(made["function"]["arguments"]) == {"a": f"x {END} }} y"}
    assert message["content"] == "there"


def test_generate_does_not_say_what_is_suppressed(tmp_path: Path) -> None:
    tokenizer.save(tiny.save("dense", tmp_path))
    said = words_of_program(tmp_path)
    assert said
    file = tmp_path / "generation_config.json"
    file.write_text(json.dumps({"suppress_tokens": sorted(said)}))
    then = words_of_program(tmp_path)
    assert then and not then & said


def words_of_program(folder: Path) -> set[int]:
    """The tokens without a character of their own that ``python -m mlx_vlm.generate`` prints."""
    arguments = ["--model", str(folder), "--prompt", "hi", "--max-tokens", "6"]
    done = subprocess.run(
        [sys.executable, "-m", "mlx_vlm.generate", *arguments, "--temperature", "0.0"],
        **{"capture_output": True, "text": True, "check": True},
    )
    return {int(token) for token in re.findall(r"\[(\d+)\]", done.stdout)}
