"""Training Gemma 4 26B-A4B fails: "Cannot calculate VJP with respect to indices".

What the user sees: with mlx 0.32, LoRA and full fine-tuning of the 26B-A4B end in the first step
with "[gather] Cannot calculate VJP with respect to indices". With any mlx, a gradient of the model
in evaluation mode ends with "[GatherMM] Cannot ...".

Why: see ``gemma4.expert_choice``.

The fix: the choice is cut off from the gradient inside the router. The forward pass is the same.
It can be deleted when no supported release is older than mlx-vlm 0.7.5.
"""

from __future__ import annotations

from ...gemma4 import expert_choice, tiny
from ...patch import Finding, Patch
from ...surgery import Surgery

_TARGET = "mlx_vlm.models.gemma4.language:Router.__call__"


def probe() -> Finding:
    from mlx_vlm.models.gemma4 import TextConfig, language

    config = TextConfig.from_dict(tiny.config("moe")["text_config"])
    router, experts = language.Router(config), language.Experts(config)
    return expert_choice.probe(router, experts, config.hidden_size)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TARGET, expert_choice.cut_off)


PATCH = Patch(id="mlx_vlm.moe_gradient", targets=(_TARGET,), apply=apply, probe=probe)
