"""Generation runs past the end of the turn, or the model does not load.

What the user sees: with ``load_tokenizer(path)``, or with a Hugging Face tokenizer given to
``stream_generate``, the model talks on after ``<turn|>``, in both roles. So it does where only
config.json's ``text_config`` names that token, and where its id is a string, which is split into
characters. A nested list raises while loading; so does a generation_config.json that is no JSON
object, or no UTF-8. ``[106]`` makes 0.31.x run past ``<eos>``.

Why: ``load_config`` takes one value as it stands from one file (ml-explore/mlx-lm#701), and
``TokenizerWrapper`` without ids knows the tokenizer's ``<eos>`` alone (ml-explore/mlx-lm#973).

The fix: ``load_config`` hands out the ids of all sources, and so does ``TokenizerWrapper`` where
its caller names none. Ids that a caller names are left as they are. It can be deleted when mlx-lm
reads ``text_config`` and validates what it reads, and ``load_tokenizer`` reads the files too.
"""

from __future__ import annotations

import inspect
from importlib.util import find_spec

from ...gemma4 import stop_tokens
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_LOAD_CONFIG = "mlx_lm.utils:load_config"
_INIT = "mlx_lm.tokenizer_utils:TokenizerWrapper.__init__"


def probe() -> Finding:
    from mlx_lm.utils import load_config, load_tokenizer

    if find_spec("mlx_lm.models.gemma4") is None:
        raise NotApplicable("this mlx-lm has no Gemma 4")

    def load(folder):
        ids = load_config(folder).get("eos_token_id")
        return load_tokenizer(folder, eos_token_ids=ids).eos_token_ids

    return stop_tokens.probe(load, lambda folder: load_tokenizer(folder).eos_token_ids)


def apply(surgery: Surgery) -> None:
    def make(original):
        return lambda model_path: stop_tokens.load_config(original, model_path)

    surgery.wrap(_LOAD_CONFIG, make)
    surgery.wrap(_INIT, _with_all_ids)


def _with_all_ids(original):
    signature = inspect.signature(original)

    def __init__(self, *args, **kwargs):
        original(self, *args, **kwargs)
        arguments = signature.bind(self, *args, **kwargs).arguments
        if arguments.get("eos_token_ids") is not None:
            return
        name = getattr(arguments["tokenizer"], "name_or_path", None)
        if ids := stop_tokens.of_gemma4(name):
            self.eos_token_ids = (self.eos_token_ids | set(ids)) - {None}

    return __init__


PATCH = Patch(
    id="mlx_lm.eos_tokens",
    targets=(f"{_LOAD_CONFIG}(model_path)", f"{_INIT}(self, tokenizer, *, eos_token_ids)"),
    apply=apply,
    probe=probe,
)
