"""mlx-lm takes Gemma 4's own assistants as draft models.

What the user sees without it: ``--draft-model`` with the assistant that Google publishes for a
Gemma 4 ends in "Model type gemma4_assistant not supported". With it, ``mlx_lm.generate`` and
``mlx_lm.server`` take one through ``--draft-model`` and ``--num-draft-tokens``, and ``generate``
and ``stream_generate`` through ``draft_model=``; the text is that without one.

Why: an assistant is no language model, which is what mlx-lm drafts with.

How: its type of model becomes known, ``speculative_generate_step`` hands over to
``hosts.mlx_lm.assisted`` where the draft model is one, and the folder of an assistant, which has no
tokenizer, gets that of the model loaded before it. One that belongs to none of the models loaded
before it is refused before its weights are read. It can be deleted when mlx-lm has assistants.

Where the query of an assistant stands is open: transformers puts it at the position of the next
token, n, and shows it the window and one key more, vLLM and mlx-vlm at n - 1 with the window. Here
it is as in transformers. More or fewer drafts may be accepted; the text is the same.

Upstream: none known.
"""

from __future__ import annotations

import contextlib
import inspect
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx

from ...gemma4 import tiny, tiny_assistant
from ...hosts.mlx_lm.models import is_assistant, is_gemma4
from ...hosts.mlx_lm.prefixes import shows_prompts
from ...hosts.mlx_lm.speculation import STEP
from ...hosts.mlx_lm.tiny import assistant as tiny_model
from ...hosts.mlx_lm.tiny import text_model
from ...patch import Finding, NotApplicable, Patch
from ...surgery import Surgery

_MADE = "mlx_lm.models.gemma4_text:Gemma4TextModel.__init__"
_TEXT = "mlx_lm.models.gemma4_text:Gemma4TextModel.__call__"
_MODEL = "mlx_lm.utils:load_model"
_TOKENIZER = "mlx_lm.utils:load_tokenizer"

_Models = weakref.WeakValueDictionary[int, Any]  # by id: mlx's modules have no hash


def probe() -> Finding:
    try:
        from mlx_lm.models import gemma4  # noqa: F401
    except ImportError:
        raise NotApplicable("this mlx-lm has no Gemma 4") from None
    from mlx_lm.generate import generate_step, speculative_generate_step

    try:
        assistant = tiny_model("e2b")
    except ValueError as error:
        return Finding(True, str(error))
    model, prompt = text_model("e2b"), mx.array(tiny.prompt(20))
    plain = [token for token, _ in generate_step(prompt, model, max_tokens=12)]
    text = mx.concatenate([prompt, mx.array(plain)])
    rates = []
    for is_told in (False, True):  # what it guesses, or the text
        if is_told:
            assistant.draft = lambda *given: text[given[-2] + 1 : given[-2] + 1 + given[-1]]
        steps = list(speculative_generate_step(prompt, model, assistant, max_tokens=8))
        said = [token for token, *_ in steps]
        if said != plain[:8]:
            return Finding(True, f"greedy tokens are {said} with an assistant, {plain[:8]} without")
        rates.append(len(said) / sum(not is_draft for *_, is_draft in steps))
    return Finding(
        False,
        "the text is that without an assistant; tokens a target step: {:.1f} with a random one, "
        "{:.1f} with one that is always right".format(*rates),
    )


def apply(surgery: Surgery) -> None:
    from ...hosts.mlx_lm import assistant

    for kind in tiny_assistant.TYPES:
        surgery.add_entry("sys:modules", f"mlx_lm.models.{kind}", assistant)
    models = _Models()  # all that are in use
    surgery.wrap(_MADE, partial(_noted, models))
    surgery.wrap(_TEXT, _heard)
    surgery.wrap(STEP, _with_an_assistant)
    surgery.wrap(_MODEL, partial(_of_a_model_before, models))
    surgery.wrap(_TOKENIZER, _of_the_target)


def _heard(original: Callable) -> Callable:
    from ...hosts.mlx_lm.assisted import hear

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        hidden = original(self, *args, **kwargs)
        hear(hidden)
        return hidden

    return __call__


def _with_an_assistant(original: Callable) -> Callable:
    from ...hosts.mlx_lm.assisted import assisted_generate_step

    signature = inspect.signature(original)

    def speculative_generate_step(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        if not is_assistant(call.arguments["draft_model"]):
            return original(*args, **kwargs)
        model, args = call.arguments["model"], call.arguments["draft_model"].args
        if not is_gemma4(model):
            raise ValueError("the draft model is an assistant of Gemma 4, and the model is not one")
        text = getattr(model, "language_model", model)
        _require_its_model([text.args.hidden_size], args.backbone_hidden_size)
        call.apply_defaults()
        return assisted_generate_step(**call.arguments, shows_prompt=shows_prompts())

    return speculative_generate_step


def _require_its_model(sizes: Iterable[int], wanted: int) -> None:
    """Raise ValueError unless one of the models has the hidden size that an assistant needs."""
    if wanted not in sizes:
        raise ValueError(
            f"the draft model is the assistant of a Gemma 4 with hidden size {wanted}, and this "
            f"model's is {' or '.join(map(str, sorted(set(sizes))))}: take the assistant that is "
            "published for this model, and load it after the model"
        )


def _noted(models: _Models, original: Callable) -> Callable:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        models[id(self)] = self

    return __init__


def _of_a_model_before(models: _Models, original: Callable) -> Callable:
    signature = inspect.signature(original)

    def load_model(*args: Any, **kwargs: Any) -> Any:
        config = _assistant(Path(signature.bind(*args, **kwargs).arguments["model_path"]))
        sizes = [model.config.hidden_size for model in models.values()]
        if config is not None and sizes:
            _require_its_model(sizes, config.get("backbone_hidden_size"))
        return original(*args, **kwargs)

    return load_model


def _of_the_target(original: Callable) -> Callable:
    signature = inspect.signature(original)
    latest: Callable[[], Any] = lambda: None  # noqa: E731

    def load_tokenizer(*args: Any, **kwargs: Any) -> Any:
        nonlocal latest
        folder = Path(signature.bind(*args, **kwargs).arguments["model_path"])
        is_bare = not any(folder.glob("tokenizer*")) and _assistant(folder) is not None
        if is_bare and (tokenizer := latest()) is not None:
            return tokenizer
        tokenizer = original(*args, **kwargs)
        with contextlib.suppress(TypeError):
            latest = weakref.ref(tokenizer)
        return tokenizer

    return load_tokenizer


def _assistant(folder: Path) -> dict[str, Any] | None:
    """The config of the assistant in a folder; None where there is none."""
    from mlx_lm.utils import load_config

    config = load_config(folder) if (folder / "config.json").is_file() else {}
    return config if config.get("model_type") in tiny_assistant.TYPES else None


PATCH = Patch(
    id="mlx_lm.assistant",
    targets=(
        STEP,
        f"{_MADE}(self)",
        f"{_TEXT}(self)",
        f"{_MODEL}(model_path)",
        f"{_TOKENIZER}(model_path)",
    ),
    apply=apply,
    probe=probe,
)
