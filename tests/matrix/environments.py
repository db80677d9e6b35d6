"""Releases by overlay: two base environments, and each release's wheel unpacked beside them.

A release is a pure-Python wheel. Unpacked with its dist-info and put first on ``PYTHONPATH`` over a
base environment it is what its user has, at the cost of a copy instead of a virtual environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mlx-gemma4-patches"

BASES = {
    "old": ["mlx[cpu]==0.31.2", "transformers<5.10"],
    "new": ["mlx[cpu]", "transformers"],
}
# what the hosts need beside mlx and transformers; vllm-mlx without torch and gradio
NEEDS = [
    "numpy",
    "sentencepiece",
    "protobuf",
    "pyyaml",
    "jinja2",
    "datasets",
    "miniaudio",
    "tqdm",
    "requests",
    "llguidance",
    "fastapi",
    "python-multipart",
    "starlette",
    "uvicorn",
    "websockets",
    "pillow",
    "opencv-python-headless",
    "psutil",
    "prometheus-client",
    "mcp",
    "jsonschema",
    "lm-format-enforcer",
    "pytz",
    "httpx",
    "tabulate",
    "scipy",
]
# these would bring hosts of their own along
NEEDS_ALONE = ["mlx-embeddings", "mlx-audio"]

_unpacking = threading.Lock()


def release(distribution: str, version: str) -> Path:
    """The folder of an unpacked release; downloads it once."""
    folder = CACHE / "releases" / f"{distribution}-{version}"
    with _unpacking:  # combinations that run side by side share releases
        if not folder.is_dir():
            say(f"downloading {distribution} {version}")
            wheels = CACHE / "wheels"
            _pip(
                sys.executable,
                *("download", "--no-deps", "--only-binary=:all:", "-d", str(wheels)),
                f"{distribution}=={version}",
            )
            (wheel,) = wheels.glob(f"{distribution.replace('-', '_')}-{version}-*.whl")
            unfinished = folder.with_name(f"{folder.name}.unfinished")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(unfinished)
            unfinished.rename(folder)
    return folder


def base(name: str) -> Path:
    """The interpreter of a base environment with this checkout installed in it."""
    folder = CACHE / f"base-{name}-{sys.version_info.major}.{sys.version_info.minor}"
    python = folder / "bin" / "python"
    complete = folder / "complete"
    needs = "\n".join([*BASES[name], *NEEDS, *NEEDS_ALONE])
    if not complete.is_file() or complete.read_text() != needs:
        say(f"making the {name} base environment: mlx, transformers, what the hosts need (minutes)")
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        _pip(python, "install", *BASES[name], *NEEDS)
        _pip(python, "install", "--no-deps", *NEEDS_ALONE)
        complete.write_text(needs)
    say(f"installing this checkout into the {name} base environment")
    checkout = f"{ROOT}[test]"
    try:  # all it needs is there, as a rule: no index is asked
        _pip(python, "install", "--no-index", "--no-build-isolation", "-e", checkout, quiet=True)
    except subprocess.CalledProcessError:
        say("something that it needs is missing: asking the package index")
        _pip(python, "install", "-e", checkout)
    return python


def environ(combination: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that put a combination's releases first on the path."""
    folders = [
        str(release(name, version)) for name, version in combination.items() if name != "base"
    ]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "HF_HUB_OFFLINE": "1"}


def say(text: str) -> None:
    """A line of progress."""
    print(f"{text} ...", flush=True)


def _pip(python: str | Path, *arguments: str, quiet: bool = False) -> None:
    errors = subprocess.DEVNULL if quiet else None
    subprocess.run([python, "-m", "pip", "-qq", *arguments], check=True, stderr=errors)
