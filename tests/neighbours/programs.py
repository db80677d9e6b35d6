"""Programs built on the hosts, and how a chat is had with each."""

from __future__ import annotations

from dataclasses import dataclass, field

MODEL, PORT = "{model}", "{port}"


@dataclass(frozen=True)
class Program:
    """One release of a program.

    Args:
        name: its distribution.
        version: the release that was tried.
        hosts: the releases of hosts to put beside it; a fork that brings its own needs none.
        start: the function that its console script calls, and the arguments to serve a model.
        model: what requests call the model, if not its folder.
        key: what requests show as their key.
        extras: what it imports beside mlx, transformers and what the hosts need.
        reason: why it does not run here, if it does not.
    """

    name: str
    version: str
    hosts: dict[str, str] = field(default_factory=dict)
    start: tuple[str, ...] = ()
    model: str = MODEL
    key: str = ""
    extras: tuple[str, ...] = ()
    reason: str = ""


_ADDRESS = ("--host", "127.0.0.1", "--port", PORT)

PROGRAMS = [
    Program("mlx-lm-broomva", "0.31.3", {}, ("mlx_lm.server:main", "--model", MODEL, *_ADDRESS)),
    Program(
        "mlx-optiq",
        "0.7.7",
        {"mlx-lm": "0.32.2"},
        ("optiq.cli:cli", "serve", "--model", MODEL, *_ADDRESS),
        "default_model",
        extras=("click",),
    ),
    Program(
        "rapid-mlx",
        "0.16.10",
        {"mlx-lm": "0.31.3", "mlx-vlm": "0.7.2"},
        ("rapid_mlx.cli:main", "serve", MODEL, *_ADDRESS),
        "default",
        extras=("openai-harmony", "tiktoken", "tomli-w", "argcomplete"),
    ),
    Program(
        "vmlx",
        "1.6.81",
        {"mlx-lm": "0.31.3", "mlx-vlm": "0.5.0"},
        ("vmlx_engine.cli:main", "serve", MODEL, *_ADDRESS),
        extras=("jang",),
    ),
    Program(
        "fusion-mlx",
        "0.10.24",
        {"mlx-lm": "0.31.3", "mlx-vlm": "0.7.2"},
        ("fusion_mlx.cli:main", "serve", MODEL, "--api-key", "none", *_ADDRESS),
        key="none",
        extras=(
            *("aiofiles", "itsdangerous", "openai-harmony", "setproctitle", "sqlalchemy"),
            *("tiktoken", "zeroconf"),
        ),
    ),
    Program("mlx-openai-server", "1.8.1", reason="it imports outlines, which needs torch"),
    Program(
        "mlx-knife",
        "2.0.8",
        {"mlx-lm": "0.31.3", "mlx-vlm": "0.6.10"},
        ("mlxk2.cli:main", "serve", "--model", MODEL, *_ADDRESS),
    ),
    Program(
        "mlx-dspark", "0.20.3", reason="without Metal its server answered nothing in three minutes"
    ),
    Program("llm-mlx", "0.4", reason="it has no server"),
    Program("mlx-lm-lora", "5.10.2", reason="it trains and has no server"),
    Program("mlx-omni-server", "0.5.3", reason="its start imports misaki, which needs spaCy"),
]
