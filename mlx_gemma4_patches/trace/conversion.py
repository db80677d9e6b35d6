"""The child that has a checkpoint of the user's read a prompt, by a host.

``python -m mlx_gemma4_patches.trace.conversion HOST FOLDER PROMPT FILE`` writes every tensor on the
way to FILE, (tokens, width) float32, beside ``ids``.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from ..children import tell

MOST_TOKENS = 512  # all that is computed of them is kept


def main(host: str, folder: str, prompt: str, file: str) -> None:
    import mlx_gemma4_patches

    mlx_gemma4_patches.activate()
    import mlx.core as mx

    from .taps import tap

    tell("begin", f"loading {Path(folder).name} with {host.replace('_', '-')}")
    ids = _ids(folder, prompt)
    generate = importlib.import_module(f"{host}.generate")  # also the name of a function there
    loaded = importlib.import_module(f"{host}.utils").load_model(Path(folder))
    model = loaded[0] if isinstance(loaded, tuple) else loaded
    recorder = tap(model)
    tell("begin", f"reading {len(ids)} tokens with {host.replace('_', '-')}")

    def sampler(logprobs: mx.array) -> mx.array:
        recorder.stop()  # the prompt was read
        return mx.argmax(logprobs, axis=-1)

    how = {"max_tokens": 1, "sampler": sampler}
    if host == "mlx_lm":
        next(generate.generate_step(mx.array(ids), model, **how))
    else:
        next(generate.generate_step(mx.array([ids]), model, None, None, **how))
    seen = recorder.seen(ids)
    whole = {name: mx.array(values) for name, (places, values) in seen.items()}
    places = {f"{name}/places": mx.array(places) for name, (places, _) in seen.items()}
    mx.save_safetensors(file, {**whole, **places, "ids": mx.array(ids)})
    tell("done", len(ids))


def _ids(folder: str, prompt: str) -> list[int]:
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)(prompt)["input_ids"]
    if not 1 < len(ids) <= MOST_TOKENS:
        raise SystemExit(f"the prompt has {len(ids)} tokens; 2 to {MOST_TOKENS} can be traced")
    return list(ids)


if __name__ == "__main__":
    main(*sys.argv[1:])
