"""Every chat request to the server ends in an error beside mlx-lm 0.32.

What the user sees: status 500, and "'str' object has no attribute 'chat_template'" in the log of
the server. It is what ``pip install mlx-vlm==0.6.3`` gives today.

Why: which parser reads tool calls is looked up by mlx-lm, which up to 0.31.3 took the text of a
chat template and takes a tokenizer since 0.32.0.

The fix: the text says of itself what is asked of a tokenizer. It can be deleted when no supported
release is older than mlx-vlm 0.6.4, which looks the parser up by itself.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_LOOKUP = "mlx_vlm.tool_parsers:_infer_tool_parser"
_CHAT = "mlx_vlm.server:chat_completions_endpoint"  # of 0.4.3, with mlx-lm's lookup beside it
_LOOKUP_OF_THE_SERVER = "mlx_vlm.server:_infer_tool_parser"


class _Template(str):
    """The text of a chat template, for those who ask its tokenizer."""

    @property
    def chat_template(self) -> str:
        return str(self)

    def get_vocab(self) -> dict[str, int]:
        return {}


def probe() -> Finding:
    if find_spec("mlx_vlm.tools") is not None:
        raise NotApplicable("this mlx-vlm looks tool parsers up by itself")
    if find_spec("mlx_vlm.tool_parsers") is not None:
        from mlx_vlm.tool_parsers import _infer_tool_parser
    else:
        from mlx_vlm.server import _infer_tool_parser

    try:
        found = _infer_tool_parser("<|tool_call>...<tool_call|>")
    except AttributeError as error:
        return Finding(True, f"looking up the tool parser fails: {error}")
    return Finding(False, f"for Gemma 4's chat template the tool parser is {found}")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_LOOKUP if _LOOKUP in surgery.targets else _LOOKUP_OF_THE_SERVER, _by_template)


def _by_template(original):
    def _infer_tool_parser(*args: Any, **kwargs: Any) -> Any:
        (template,) = (*args, *kwargs.values())  # its name is the host's choice
        return original(_Template(template) if isinstance(template, str) else template)

    return _infer_tool_parser


PATCH = Patch(id="mlx_vlm.tool_parser_lookup", targets=(_LOOKUP, _CHAT), apply=apply, probe=probe)
