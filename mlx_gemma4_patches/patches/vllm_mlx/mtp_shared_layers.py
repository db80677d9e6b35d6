"""With a drafter, E2B and E4B decode no faster, and every token logs a warning.

What the user sees: with ``--mllm-draft-model`` and a request that asks for ``mllm_draft``, the text
of plain decoding at less than its speed, and in the log, once a token, "draft/verify failed:
Assistant MTP requires target shared-KV state from the batch cache".

Why: the drafter reads keys and values of the last full and the last sliding layer that has any.
They are looked up with one cache for each layer; the KV-shared layers of E2B and E4B have none, so
nothing is found.

The fix: the look-up sees a model that has as many layers as caches. It can be deleted when
vllm-mlx or mlx-vlm looks at the layers that have caches.

Upstream: not reported yet.
"""

from __future__ import annotations

import inspect

from ...gemma4 import tiny
from ...hosts.mlx_lm.speculation import View
from ...hosts.vllm_mlx.drafting import INSTALL, answers
from ...hosts.vllm_mlx.models import is_gemma4
from ...patch import Finding, Patch
from ...surgery import Surgery


def probe() -> Finding:
    _, counts = answers("e2b", [tiny.prompt(4)], 3)
    tried, failed = counts["attempted"], counts["errors"]
    return Finding(failed > 0, f"of {tried} attempts to draft {failed} fail")


def apply(surgery: Surgery) -> None:
    surgery.wrap(INSTALL, _installing)


def _installing(original):
    signature = inspect.signature(original)

    def install_mtp_mllm(*args, **kwargs):
        call = signature.bind(*args, **kwargs)
        model = call.arguments["language_model"]
        if is_gemma4(getattr(call.arguments["batch_gen"], "model", None)):
            with_caches = model.model.layers[: len(model.make_cache())]
            call.arguments["language_model"] = View(
                model, model=View(model.model, layers=with_caches)
            )
        return original(*call.args, **call.kwargs)

    return install_mtp_mllm


PATCH = Patch(id="vllm_mlx.mtp_shared_layers", targets=(INSTALL,), apply=apply, probe=probe)
