"""The model does not load, or generation runs past the end of the turn.

What the user sees: a generation_config.json that is no UTF-8 raises, and up to 0.6.2 one that is
no JSON object. From 0.6.3 on, null in it erases the ids of config.json. Ids that are strings, or
stand in ``text_config`` only, stop nothing. Up to 0.6.3, what ``generate(eos_tokens=...)`` asks
for ends all later requests too.

Why: ``load_config`` takes one value as it stands from one file (Blaizzy/mlx-vlm#650; from 0.7.0 on
the tokenizer's end is added, #2112). The stopping criteria share their list with the model's
config and append to it (fixed in 0.6.4, #1410).

The fix: ``load_config`` hands out the ids of all sources, and the criteria append to a list of
their own. It can be deleted when mlx-vlm validates what it reads and no supported release is older
than 0.6.4.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from ...gemma4 import stop_tokens
from ...patch import Finding, Patch
from ...surgery import Surgery

_LOAD_CONFIG = "mlx_vlm.utils:load_config"
_MERGE = "mlx_vlm.utils:_merge_generation_config"  # from 0.6.3; a part of load_config
_CRITERIA = "mlx_vlm.utils:StoppingCriteria"


def probe() -> Finding:
    from mlx_vlm.utils import StoppingCriteria, load_config

    def after_a_request_of_its_own(folder: Path):
        ids = load_config(folder).get("eos_token_id")
        tokenizer = SimpleNamespace(
            eos_token_id=1, name_or_path=str(folder), encode=lambda text, **_: [4]
        )
        criteria = StoppingCriteria(ids, tokenizer)
        criteria.reset(ids)
        criteria.add_eos_token_ids(["<unk>"])
        criteria.reset(ids)
        return criteria.eos_token_ids

    return stop_tokens.probe(after_a_request_of_its_own)


def apply(surgery: Surgery) -> None:
    surgery.wrap(_LOAD_CONFIG, _with_all_ids)
    surgery.wrap(f"{_CRITERIA}.add_eos_token_ids", _to_a_list_of_its_own)


def _with_all_ids(original):
    def load_config(model_path, **kwargs):
        return stop_tokens.load_config(lambda path: original(path, **kwargs), model_path)

    return load_config


def _to_a_list_of_its_own(original):
    def add_eos_token_ids(self, *args, **kwargs):
        folder = getattr(self.tokenizer, "name_or_path", None)
        if isinstance(self.eos_token_ids, list) and stop_tokens.is_gemma4_folder(folder):
            self.eos_token_ids = list(self.eos_token_ids)
        return original(self, *args, **kwargs)

    return add_eos_token_ids


PATCH = Patch(
    id="mlx_vlm.eos_tokens",
    targets=(f"{_LOAD_CONFIG}(model_path)", _MERGE, _CRITERIA),
    apply=apply,
    probe=probe,
)
