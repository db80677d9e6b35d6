"""The command line: ``python -m mlx_gemma4_patches``, also installed as ``mlx-gemma4-patches``."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys

COMMANDS = ("doctor", "prove", "list", "explain", "trace", "bench", "audit")  # modules of commands/
INTERRUPTED = 130  # as shells count: 128 and the number of SIGINT


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 healthy, 1 a fault is left, 2 usage."""
    if arguments is None:  # a process of our own; what it has started must end with it
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _end)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _run(arguments: list[str] | None) -> int:
    from . import matrix
    from .commands.screen import show_error

    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except matrix.MatrixError as error:
        show_error(error)
        return 1


def _parser() -> argparse.ArgumentParser:
    from . import __version__

    parser = argparse.ArgumentParser(
        prog="mlx-gemma4-patches",
        description="Gemma 4 on MLX as in the reference implementation, for the installed releases "
        "of mlx-lm, mlx-vlm and vllm-mlx. The patches apply themselves; these commands show them.",
        epilog="Exit codes: 0 healthy, 1 a fault is left, 2 usage, 130 interrupted. "
        "MLX_GEMMA4_PATCHES=0 switches everything off, MLX_GEMMA4_PATCHES_DISABLE=id,id single "
        "patches.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for name in COMMANDS:
        importlib.import_module(f"{__package__}.commands.{name}").add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
