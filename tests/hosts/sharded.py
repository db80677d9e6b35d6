"""mlx-lm's Gemma 4 in several processes of this machine, by ``mlx.launch`` and its ring.

As a program, ``python -m tests.hosts.sharded FOLDER OUT`` is one of them: it answers what
``answers`` asks, and the first writes it to OUT. With ``--trace`` each writes what a trace of the
texts and of an image comes to beside OUT. ``--pipeline`` has them in a pipeline, and ``--die`` the
last one end in the middle.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from tests.hosts.parity import reference

_ROOT = Path(__file__).resolve().parents[2]
_LAUNCH = "from mlx._distributed_utils.launch import main; main()"
_LAYER = re.compile(r"layer (\d+)")
TOKENS = 8
PATIENCE = 300  # seconds for all processes together


def launcher(count: int) -> list[str]:
    """What comes before a command to run it in so many processes."""
    port = _free_ports(count)
    # mlx before 0.32 takes what is a file for a program in Python
    return [
        *(sys.executable, "-c", _LAUNCH, "-n", str(count), "--backend", "ring"),
        *("--starting-port", str(port), "--cwd", str(_ROOT), "--", "env"),
    ]


def _free_ports(count: int) -> int:
    """The first of so many ports in a row, of those that no system hands out by itself."""
    while True:
        first = random.randrange(20000, 32000)
        with contextlib.ExitStack() as taken, contextlib.suppress(OSError):
            for port in range(first, first + count):
                taken.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


def launch(folder: Path, count: int, *options: str) -> subprocess.CompletedProcess:
    """Run ``count`` processes; OUT is ``folder / "out.safetensors"``.

    Raises subprocess.TimeoutExpired: one of them has not ended in time.
    """
    out = folder / "out.safetensors"
    command = [
        *launcher(count),
        *(sys.executable, "-m", __name__, str(folder), str(out), *options),
    ]
    process = subprocess.Popen(
        command,
        cwd=_ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # the launcher does not take its processes along when it ends
    )
    try:
        said = process.communicate(timeout=PATIENCE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, *said)


def answers(model: Any, shape: str) -> dict[str, mx.array]:
    """Logits of prompts with and without images, and what is said to them: alone, in a batch, and
    in two turns with a prompt cache."""
    from mlx_lm.generate import BatchGenerator, generate_step
    from mlx_lm.models.cache import make_prompt_cache

    from mlx_gemma4_patches.gemma4 import tiny
    from mlx_gemma4_patches.gemma4.embedded import embed
    from mlx_gemma4_patches.gemma4.placeholders import Placeholders

    expected = reference(shape)
    ids, pictured = expected["ids_40"], expected["ids_images"]
    is_whole = tiny.config(shape)["text_config"]["use_bidirectional_attention"] == "vision"
    embedded = embed(
        pictured,
        model.language_model.model.embed_tokens,
        {502: [expected["features_images"]]},
        is_whole,
        Placeholders(502, 503, 505),
    )
    logits = {"logits": model(ids[None])[0]}
    mx.eval(logits)  # each for itself: what comes in for two at once is not told apart
    logits["image_logits"] = model(pictured[None], input_embeddings=embedded[None])[0]
    mx.eval(logits)  # before the generators: they run ahead in a stream of their own
    greedy = [t for t, _ in generate_step(ids, model, max_tokens=TOKENS, prefill_step_size=16)]
    seen = generate_step(pictured, model, max_tokens=TOKENS, input_embeddings=embedded)
    image_greedy = [t for t, _ in seen]
    caches, turns = make_prompt_cache(model), []
    for turn in (ids[:24], ids[24:]):
        turns += [t for t, _ in generate_step(turn, model, max_tokens=TOKENS, prompt_cache=caches)]
    generator = BatchGenerator(model, max_tokens=TOKENS, stop_tokens=[])
    uids = generator.insert([ids.tolist(), expected["ids_8"].tolist()])
    said = {uid: [] for uid in uids}
    while min(map(len, said.values())) < TOKENS:
        responses = generator.next()
        for response in responses[1] if isinstance(responses, tuple) else responses:
            said[response.uid].append(response.token)
    return {
        **{name: values.astype(mx.float32) for name, values in logits.items()},
        "greedy": mx.array([int(token) for token in greedy]),
        "image_greedy": mx.array([int(token) for token in image_greedy]),
        "turns": mx.array([int(token) for token in turns]),
        "batch": mx.array([said[uid][:TOKENS] for uid in uids]),
    }


def nbytes(model: Any) -> int:
    return sum(value.nbytes for _, value in tree_flatten(model.parameters()))


def load(folder: str, *options: str) -> Any:
    """What this process holds of the model of a folder."""
    from mlx_lm.utils import sharded_load

    group = mx.distributed.init(strict=True)
    groups = (group, None) if "--pipeline" in options else (None, group)
    return sharded_load(folder, *groups)[0]


def traceable(shape: str) -> list[Any]:
    """The cases of a shape; mlx-lm has no draft models in several processes."""
    from mlx_gemma4_patches.trace import cases

    wanted = cases.of_host("mlx_lm")
    return [case for case in wanted if case.shape == shape and case.way != "drafts"]


def traced(folder: str, shape: str, *options: str) -> dict[str, Any]:
    """What a trace of each way of reading, in float32, comes to here."""
    from mlx_gemma4_patches.trace import mlx_lm, reading

    made = {}
    for case in traceable(shape):
        model = load(folder, *options)
        ids = reading.prompt(case)
        seen = mlx_lm.read(model, case, ids).seen(ids)
        first = getattr(model.model, "start_idx", 0)
        here = {_of_all(name, first): values for name, values in seen.items()}
        made[case.way] = reading.compare(case, "float32", here)
    return made


def _of_all(name: str, first: int) -> str:
    """The name of a tensor with the number that its layer has in the whole model."""
    return _LAYER.sub(lambda found: f"layer {int(found[1]) + first}", name)


def run(folder: str, out: str, *options: str) -> None:
    import mlx_gemma4_patches

    mlx_gemma4_patches.activate()
    mx.set_default_device(mx.cpu)
    shape = json.loads((Path(folder) / "shape.json").read_text())
    group = mx.distributed.init(strict=True)
    if "--trace" in options:
        made = json.dumps(traced(folder, shape, *options))
        Path(f"{out}.{group.rank()}.json").write_text(made)
        return
    model = load(folder, *options)
    if "--die" in options:
        if group.rank() == group.size() - 1:
            print("this process ends", flush=True)
            os._exit(3)
        while True:
            mx.eval(model(mx.array([[2, 120]])))
    held = mx.distributed.all_gather(mx.array([nbytes(model)]))
    mx.eval(held)
    made = answers(model, shape)
    if group.rank() == 0:
        mx.save_safetensors(out, {**made, "nbytes": held})


if __name__ == "__main__":
    run(*sys.argv[1:])
