"""Every parser of what a model says, on hostile texts of 1 and 2 MB: it takes linear time.

``python -m tests.fuzz [PARSER...]`` measures all parsers of the hosts that are installed, or those
named, and ends with 1 where one takes more than 2.3 times as long for twice the text.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from itertools import accumulate

import mlx_gemma4_patches

from . import texts

_LENGTH = 1 << 20
_MOST = 2.3
_TRIES = 4  # a busy machine is no failure
_PARTS = {"one feed": 1 << 30, "many feeds": 5}
# hosts show their parsers all of the text so far with each part, so these cannot be many
_PARTS_OF_ALL = {"one feed": 1 << 30, "many feeds": 1 << 18}

Parse = Callable[[list[str]], object]


def main() -> int:
    mlx_gemma4_patches.activate()
    logging.disable(logging.CRITICAL)
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("parsers", nargs="*", metavar="PARSER")
    chosen = parser.parse_args().parsers
    slow = []
    for name, parse, shapes, parts in _parsers():
        if chosen and name not in chosen:
            continue
        for shape in shapes:
            for way, size in parts.items():
                one, two = _seconds(parse, shapes[shape], size)
                is_slow = two > _MOST * one + 0.05
                slow += [f"{name}, {shape}, {way}: {one:.2f} s and {two:.2f} s"] if is_slow else []
                mark = "  SLOW" if is_slow else ""
                print(f"{name:14} {one:6.2f} {two:6.2f} s  {shape}, {way}{mark}", flush=True)
    print(*(slow or ["all are linear"]), sep="\n")
    return 1 if slow else 0


def _seconds(parse: Parse, shape: Callable[[int], str], size: int) -> tuple[float, float]:
    """The time for a text and for one of twice the length, the least of some tries."""
    both = []
    for length in (_LENGTH, 2 * _LENGTH):
        text = texts.long(shape, length)
        both.append([text[at : at + size] for at in range(0, len(text), size)])
    least = [float("inf")] * 2
    for _ in range(_TRIES):
        least = [min(known, _time(parse, parts)) for known, parts in zip(least, both, strict=True)]
        if least[1] <= _MOST * least[0]:
            break
    return least[0], least[1]


def _time(parse: Parse, parts: list[str]) -> float:
    gc.collect()
    gc.disable()  # its passes over the result are not the parser's
    try:
        start = time.process_time()
        parse(parts)
        return time.process_time() - start
    finally:
        gc.enable()


def _parsers() -> Iterator[tuple[str, Parse, dict, dict[str, int]]]:
    """Name, parser, the shapes of its texts, and how they are cut."""
    from mlx_gemma4_patches.gemma4 import channels, tool_calls

    def parse(parts: list[str]) -> None:
        with contextlib.suppress(tool_calls.ToolCallError):
            tool_calls.parse("".join(parts))

    yield "parse", parse, texts.OF_CALLS, {"one feed": 1 << 30}
    yield "reader", _fed(tool_calls.Reader), texts.OF_ANSWERS, _PARTS
    yield "turn", _fed(channels.Turn), texts.OF_ANSWERS, _PARTS
    for host, parsers in (("mlx_lm", _mlx_lm), ("mlx_vlm", _mlx_vlm), ("vllm_mlx", _vllm_mlx)):
        try:
            importlib.import_module(f"{host}.models" if host != "vllm_mlx" else host)
        except ImportError as error:
            print(f"without {host}: {error}")
            continue
        yield from parsers()


def _fed(make: Callable) -> Parse:
    def parse(parts: list[str]) -> None:
        made = make()
        for part in parts:
            made.feed(part)
        made.finish()

    return parse


def _mlx_lm() -> Iterator[tuple[str, Parse, dict, dict[str, int]]]:
    from mlx_lm.server import ToolCallFormatter
    from mlx_lm.tool_parsers.gemma4 import parse_tool_call

    from mlx_gemma4_patches.hosts.mlx_lm import chat

    host = importlib.import_module("mlx_lm.generate")

    def split(parts: list[str]) -> None:
        machine = host.make_text_state_machine(chat.tokenizer())
        state = machine.make_state()
        for part in parts:
            state, _ = machine.split(state, part)
        machine.flush(state)

    def format_calls(parts: list[str]) -> None:
        ToolCallFormatter(parse_tool_call, None)(["".join(parts)])

    yield "mlx_lm split", split, texts.OF_ANSWERS, _PARTS
    yield "mlx_lm calls", format_calls, texts.OF_CALLS | texts.OF_ANSWERS, {"one feed": 1 << 30}


def _mlx_vlm() -> Iterator[tuple[str, Parse, dict, dict[str, int]]]:
    from mlx_vlm.server import process_tool_calls
    from mlx_vlm.server.responses_state import ToolCallStreamState

    from mlx_gemma4_patches.gemma4.tool_calls import END, START, ToolCallError, parse
    from mlx_gemma4_patches.hosts.mlx_vlm.tool_calls import host_parser
    from mlx_gemma4_patches.patches.mlx_vlm import thinking

    class Parser:
        tool_call_start, tool_call_end = START, END
        parse_tool_call = staticmethod(host_parser().parse_tool_call)

    def is_ours(name: str) -> bool:
        """The host's own parser gets what ours cannot read, and copies it for each character."""
        if name not in texts.CALLS_IN_ANSWERS:
            return True
        with contextlib.suppress(ToolCallError):
            return bool(parse(texts.OF_ANSWERS[name](3).removeprefix(START).removesuffix(END)))
        return False

    def whole(parts: list[str]) -> None:
        process_tool_calls("".join(parts), Parser, None)

    def stream(parts: list[str]) -> None:
        state = ToolCallStreamState(START, END)
        for part in parts:
            state.feed(part)
        state.feed("", last=True)

    ours = {name: shape for name, shape in texts.OF_ANSWERS.items() if is_ours(name)}
    yield "mlx_vlm whole", whole, ours, {"one feed": 1 << 30}
    yield "mlx_vlm stream", stream, texts.OF_ANSWERS, _PARTS
    yield "mlx_vlm turn", _fed(lambda: thinking._Answer(False)), texts.OF_ANSWERS, _PARTS


def _vllm_mlx() -> Iterator[tuple[str, Parse, dict, dict[str, int]]]:
    from vllm_mlx.reasoning.gemma4_parser import Gemma4ReasoningParser
    from vllm_mlx.tool_parsers.gemma4_tool_parser import Gemma4ToolParser

    def reasoning(parts: list[str]) -> None:
        parser, text = Gemma4ReasoningParser(), ""
        for now, part in zip(accumulate(parts), parts, strict=True):
            parser.extract_reasoning_streaming(text, now, part)
            text = now
        parser.finalize_stream()
        parser.extract_reasoning(text)

    def calls(parts: list[str]) -> None:
        parser, text = Gemma4ToolParser(None), ""
        for now, part in zip(accumulate(parts), parts, strict=True):
            parser.extract_tool_calls_streaming(text, now, part)
            text = now
        parser.finalize_streaming(text)

    yield "vllm reasoning", reasoning, texts.OF_ANSWERS, _PARTS_OF_ALL
    yield "vllm calls", calls, texts.OF_ANSWERS, _PARTS_OF_ALL


if __name__ == "__main__":
    sys.exit(main())
