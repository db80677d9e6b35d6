"""Training Gemma 4 26B-A4B fails: "Cannot calculate VJP with respect to indices".

What the user sees: with mlx 0.32, LoRA, DoRA and full fine-tuning of the 26B-A4B end in the first
step with "[gather] Cannot calculate VJP with respect to indices", after a healthy validation loss.
With any mlx, a gradient of the model in evaluation mode ends with "[GatherMM] Cannot ...".

Why: see ``gemma4.expert_choice``.

The fix: the choice is cut off from the gradient inside the router (``gemma4.expert_choice``). The
forward pass is the same. It can be deleted when no supported release is older than mlx-lm
0.32.0.

Upstream: ml-explore/mlx-lm#1897, #1856 (0.32.0).
"""

from __future__ import annotations

from ...gemma4 import expert_choice, tiny
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_TARGET = "mlx_lm.models.gemma4_text:Router.__call__"


def probe() -> Finding:
    try:
        from mlx_lm.models import gemma4_text
    except ImportError:
        raise NotApplicable("this mlx-lm has no Gemma 4") from None
    config = gemma4_text.ModelArgs.from_dict(tiny.config("moe")["text_config"])
    router, experts = gemma4_text.Router(config), gemma4_text.Experts(config)
    return expert_choice.probe(router, experts, config.hidden_size)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_TARGET, expert_choice.cut_off)


PATCH = Patch(
    id="mlx_lm.moe_gradient",
    targets=(_TARGET,),
    apply=apply,
    probe=probe,
)
