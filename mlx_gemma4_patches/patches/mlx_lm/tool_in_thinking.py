"""A tool that Gemma 4 calls in the middle of a thought is not called.

What the user sees: the markup of the call in ``reasoning``, ``finish_reason`` "stop", no call.

Why: in a thought mlx-lm's server looks for the end of the thought and for nothing else.

The fix: there, too, ``<|tool_call>`` begins a call. It can be deleted when no supported release is
older than 0.32.0, which does the same for every model (ml-explore/mlx-lm#1501).
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from ...gemma4 import channels, tool_calls
from ...hosts.mlx_lm import chat
from ...patch import Finding, Patch
from ...surgery import Surgery

_TARGET = "mlx_lm.generate:SequenceStateMachine.__init__"
_CALL = (tool_calls.START_ID,)


def probe() -> Finding:
    chat.require_gemma4()
    found = chat.split(f"{channels.THOUGHT}\nhm{tool_calls.START}call:f{{}}{tool_calls.END}")
    measured = f"a thought with a tool call in it is split into {', '.join(found)}"
    return Finding("tool" not in found, measured)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TARGET, _with_calls_in_thoughts)


def _with_calls_in_thoughts(original: Callable) -> Callable:
    def __init__(self, transitions=MappingProxyType({}), *args, **kwargs):
        reasoning = transitions.get("reasoning", ())
        if _has_markers_of_gemma4(transitions) and (_CALL, "tool") not in reasoning:
            transitions = {**transitions, "reasoning": [*reasoning, (_CALL, "tool")]}
        original(self, transitions, *args, **kwargs)

    return __init__


def _has_markers_of_gemma4(transitions: dict) -> bool:
    """By the ids of three markers; a state machine knows nothing else of its model."""
    normal = transitions.get("normal", ())
    return (
        any(name == "reasoning" and ids[0] == channels.OPENING_ID for ids, name in normal)
        and (_CALL, "tool") in normal
        and ((tool_calls.END_ID,), "normal") in transitions.get("tool", ())
    )


PATCH = Patch(id="mlx_lm.tool_in_thinking", targets=(_TARGET,), apply=apply, probe=probe)
