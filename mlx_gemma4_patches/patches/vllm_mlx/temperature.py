"""Questions about images are answered at a temperature that nobody has asked for.

What the user sees, without continuous batching: ``temperature`` changes nothing. Answers are always
the likeliest, and on mlx-vlm 0.7 drawn as generation_config.json says, also with ``temperature`` 0.

Why: ``MLXMultimodalLM`` passes it to mlx-vlm as ``temp``, which is no parameter there.

The fix: mlx-vlm is handed a sampler of that temperature. It can be deleted when no supported
release is older than vllm-mlx 0.6.0.
"""

from __future__ import annotations

import inspect
from types import SimpleNamespace

from ...hosts.vllm_mlx import unbatched
from ...hosts.vllm_mlx.models import is_gemma4
from ...patch import Finding, Patch
from ...surgery import Surgery

_MODEL = "vllm_mlx.models.mllm:MLXMultimodalLM"
_METHODS = tuple(
    f"{_MODEL}.{name}" for name in ("generate", "stream_generate", "chat", "stream_chat")
)


def probe() -> Finding:
    asked = {}

    def generate(*args, **how):
        asked.update(how)
        return SimpleNamespace(text="so", prompt_tokens=1, generation_tokens=1)

    unbatched.answer(generate, temperature=0.25)
    passed = sorted(asked.keys() & {"temperature", "sampler"})
    how = f"as {' and '.join(passed)}" if passed else "not at all"
    return Finding(not passed, f"the temperature of a request is passed on to mlx-vlm {how}")


def apply(surgery: Surgery) -> None:
    for target in _METHODS:
        surgery.wrap(target, _with_sampler)


def _with_sampler(original):
    signature = inspect.signature(original)

    def method(self, *args, **named):
        call = signature.bind(self, *args, **named)
        call.apply_defaults()
        how = {**call.arguments, **call.arguments["kwargs"]}
        # a drafter has its own way to draw
        drafts = getattr(self, "_draft_model", None) is not None
        if "sampler" not in how and not drafts and is_gemma4(self):
            named["sampler"] = _sampler(
                how["temperature"],
                how.get("top_p", 0.0),
                how.get("top_k", 0),
                how.get("min_p", 0.0),
            )
        return original(self, *args, **named)

    return method


def _sampler(temperature: float, top_p: float, top_k: int, min_p: float):
    from mlx_lm.sample_utils import make_sampler

    return make_sampler(temp=temperature, top_p=top_p, min_p=min_p, top_k=top_k)


PATCH = Patch(id="vllm_mlx.temperature", targets=_METHODS, apply=apply, probe=probe)
