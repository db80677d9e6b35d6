"""A host's real server that counts the tokens it sends through Gemma 4 and says what it is told.

``python -m tests.hosts.counted HOST MODEL ARGUMENTS...``. Beside the model, control.json holds
``tag``, which every line of counted.jsonl repeats, and ``script``: the ids that the model says,
whatever it would have said itself, which is noted. Without a script it says its own, but no marker.
"""

from __future__ import annotations

import functools
import json
import sys
import threading
from pathlib import Path
from typing import Any

import mlx.core as mx

import mlx_gemma4_patches
from mlx_gemma4_patches.gemma4.tiny import VOCABULARY
from tests.hosts import server, tokenizer

CONTROL, COUNTED = "control.json", "counted.jsonl"
MUTE = [i in tokenizer.SPECIAL or i >= 300 for i in range(VOCABULARY)]

_MLX_LM = [("mlx_lm.models.gemma4_text", "Model", "Gemma4TextModel")]
_MLX_VLM = [("mlx_vlm.models.gemma4.language", "LanguageModel", "Gemma4TextModel")]
_MODELS = {"mlx_lm": _MLX_LM, "mlx_vlm": _MLX_VLM, "vllm_mlx": _MLX_LM + _MLX_VLM}
_DECODED = 8  # a step of no more tokens can be a draft that is verified


class _Counter:
    def __init__(self, folder: Path):
        self._control = folder / CONTROL
        self._log = (folder / COUNTED).open("a", buffering=1)
        self._lock = threading.Lock()
        self._place: dict[int, tuple[str, int]] = {}  # in the script, by model

    def control(self) -> dict[str, Any]:
        return json.loads(self._control.read_bytes())

    def note(self, **line: Any) -> None:
        with self._lock:
            self._log.write(json.dumps({**line, "tag": self.control()["tag"]}) + "\n")

    def watch(self, owner: Any, name: str, call: Any) -> None:
        """Replace a method by ``call(original, self, ids or None, embeddings, all of them)``."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def watched(model, *args, **kwargs):
            inputs = args[0] if args else kwargs.get("inputs")
            embeddings = kwargs.get("inputs_embeds", kwargs.get("input_embeddings"))
            made = original(model, *args, **kwargs)
            return call(model, inputs, embeddings, made)

        setattr(owner, name, watched)

    def count(self, model: Any, inputs: Any, embeddings: Any, made: Any) -> Any:
        rows, length = (inputs if inputs is not None else embeddings).shape[:2]
        self.note(rows=rows, length=length)
        return made

    def speak(self, model: Any, inputs: Any, embeddings: Any, made: Any) -> Any:
        if inputs is None:  # a prompt with pictures or sounds, of which the ids are not known
            inputs = mx.full(embeddings.shape[:2], -1)
        logits = getattr(made, "logits", made)
        said = self._said(model, inputs, logits)
        if made is logits:
            return said
        made.logits = said
        return made

    def _said(self, model: Any, inputs: mx.array, logits: mx.array) -> mx.array:
        control = self.control()
        script, tag = control["script"], control["tag"]
        if not script or inputs.shape[0] > 1:
            return mx.where(mx.array(MUTE), mx.array(-1e4, logits.dtype), logits)
        few = inputs.shape[1] <= _DECODED
        tail = logits[0, -min(logits.shape[1], _DECODED if few else 1) :].astype(mx.float32)
        at, forced = self._place.get(id(model), ("", 0)), []
        at = at[1] if at[0] == tag else 0
        given = inputs[0].tolist()
        for token in given[-tail.shape[0] :]:
            at = at + 1 if few and 0 < at <= len(script) and token == script[at - 1] else 1
            forced.append(script[at - 1] if at <= len(script) else 106)
        self._place[id(model)] = (tag, at)
        own = (mx.argmax(tail, -1).tolist(), mx.max(tail, -1).tolist())
        self.note(model=id(model), given=given, forced=forced, own=list(zip(*own, strict=True)))
        wanted = mx.arange(logits.shape[-1]) == mx.array(forced)[:, None]
        wanted = mx.where(wanted, 100.0, -100.0).astype(logits.dtype)[None]
        return mx.concatenate([logits[:, : -len(forced)], wanted], axis=1)


def _watch_templates(counter: _Counter) -> None:
    """Note the prompts, which some hosts never hand to the model as a whole."""
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    def rendered(original):
        @functools.wraps(original)
        def apply_chat_template(self, *args, **kwargs):
            made = original(self, *args, **kwargs)
            if kwargs.get("add_generation_prompt"):
                prompt = made if isinstance(made, (str, list)) else list(made["input_ids"])
                counter.note(prompt=prompt)
            return made

        return apply_chat_template

    for owner in (PreTrainedTokenizerBase, ProcessorMixin):
        owner.apply_chat_template = rendered(owner.apply_chat_template)


def _serve(host: str, model: str, *arguments: str) -> None:
    mlx_gemma4_patches.activate()
    counter = _Counter(Path(model))
    for module, outer, inner in _MODELS[host]:
        __import__(module)
        counter.watch(getattr(sys.modules[module], inner), "__call__", counter.count)
        counter.watch(getattr(sys.modules[module], outer), "__call__", counter.speak)
    _watch_templates(counter)
    server.run(host, model, *arguments)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
