"""How many answers about sounds, pictures and videos are those of transformers, door by door.

    python -m tests.hosts.media_table [DOOR ...] [--some]

20 sounds, 20 pictures and 6 videos, alone and in pairs, with a tiny random E2B. The doors: python
(``mlx_vlm.stream_generate``), mlx_vlm (its server), vllm_mlx (its server without batches),
vllm_mlx_batching (with them). Without any named, those of the installed hosts. A server tells the
number of a prompt's ids, not the ids. ``--some`` asks every seventh question.

An answer counts up to markup, and as far as transformers has no two tokens of one rank to 0.01.
Videos are sampled as transformers does, which ``mlx_vlm.video_frames`` is opted into for.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import itertools
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("MLX_GEMMA4_PATCHES_ENABLE", "mlx_vlm.video_frames")

import mlx.core as mx
from tokenizers import Tokenizer

import mlx_gemma4_patches
from mlx_gemma4_patches.gemma4 import tiny, tiny_audio
from tests.hosts import tokenizer
from tests.hosts.server import Server, serve
from tests.reference import media_cases
from tests.reference.conversations import Medium

REFERENCE = Path(media_cases.__file__).with_name("media_table.safetensors")
_ENDS = {"audio": "wav", "image": "png", "video": "avi"}
_TYPES = {"audio": "audio/wav", "image": "image/png", "video": "video/avi"}
_SERVERS = {
    "mlx_vlm": ("mlx_vlm", []),
    "vllm_mlx": ("vllm_mlx", ["--mllm"]),
    "vllm_mlx_batching": ("vllm_mlx", ["--mllm", "--continuous-batching"]),
}
# how many ids or the ids, and the text
Answer = tuple[Any, str]


def save(folder: Path) -> Path:
    """The checkpoint and the files of all media."""
    tokenizer.save(folder)
    tiny_audio.add_to(tiny.save("e2b", folder))
    media_cases.write(folder)
    return folder


def kind_of(parts: list) -> str:
    """Such as "audio" or "audio + image"."""
    return " + ".join(part.kind for part in parts if isinstance(part, Medium))


def python_door(folder: Path) -> Callable[[list, int], Answer]:
    """Ask mlx-vlm in this process; the answer has the ids."""
    utils, generate = (importlib.import_module(f"mlx_vlm.{name}") for name in ("utils", "generate"))
    prompt_utils = importlib.import_module("mlx_vlm.prompt_utils")
    model, processor = utils.load(str(folder))

    def ask(parts: list, count: int) -> Answer:
        files = {kind: _files(parts, kind, folder) for kind in media_cases.MEDIA}
        content = [
            {"type": part.kind} if isinstance(part, Medium) else {"type": "text", "text": part}
            for part in parts
        ]
        prompt = prompt_utils.apply_chat_template(
            processor,
            model.config,
            [{"role": "user", "content": content}],
            num_images=len(files["image"]),
            num_audios=len(files["audio"]),
            **({"video": files["video"]} if files["video"] else {}),
        )
        inputs = utils.prepare_inputs(
            processor,
            images=files["image"] or None,
            audio=files["audio"] or None,
            videos=files["video"] or None,
            prompts=prompt,
        )
        media = {kind: named or None for kind, named in files.items()}
        steps = generate.stream_generate(
            model, processor, prompt, max_tokens=max(count, 1), temperature=0.0, **media
        )
        return inputs["input_ids"][0].tolist(), "".join(step.text for step in steps)

    return ask


def http_door(server: Server, folder: Path, host: str) -> Callable[[list, int], Answer]:
    """Ask a server as OpenAI's clients do; the answer has the number of ids."""

    def part_of(part: Any) -> dict[str, Any]:
        if not isinstance(part, Medium):
            return {"type": "text", "text": part}
        file = folder / f"{part.name}.{_ENDS[part.kind]}"
        data = base64.b64encode(file.read_bytes()).decode()
        if part.kind == "audio":
            return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
        url = f"data:{_TYPES[part.kind]};base64,{data}"
        if part.kind == "video" and host == "mlx_vlm":
            url = str(file)  # the only way in
        return {"type": f"{part.kind}_url", f"{part.kind}_url": {"url": url}}

    def ask(parts: list, count: int) -> Answer:
        body = {
            "model": str(folder),
            "messages": [{"role": "user", "content": [part_of(part) for part in parts]}],
            "max_tokens": max(count, 1),
            "temperature": 0,
        }
        answer = server("/v1/chat/completions", body)
        usage = answer["usage"]
        message = answer["choices"][0]["message"]
        asked = usage.get("prompt_tokens", usage.get("input_tokens"))
        return asked, message.get("content") or ""

    return ask


def _files(parts: list, kind: str, folder: Path) -> list[str]:
    media = [part for part in parts if isinstance(part, Medium) and part.kind == kind]
    return [str(folder / f"{medium.name}.{_ENDS[kind]}") for medium in media]


class Table:
    """Counts by door and kind of conversation, and the answers that are wrong."""

    def __init__(self, reference: dict[str, mx.array], tokenizer_file: Path, every: int):
        self.reference = reference
        self.tokens = Tokenizer.from_file(str(tokenizer_file))
        self.every = every
        self.counts: dict[str, Counter[tuple[str, str]]] = {}
        self.wrong: list[str] = []

    def fill(self, door: str, ask: Callable[[list, int], Answer]) -> None:
        counts = self.counts[door] = Counter()
        for name, parts in list(media_cases.CONVERSATIONS.items())[:: self.every]:
            ids = self.reference[f"ids_{name}"].tolist()
            # up to markup, which a server takes out
            said = self.reference[f"greedy_{name}"].tolist()
            greedy = list(itertools.takewhile(lambda token: token not in tokenizer.SPECIAL, said))
            kind = kind_of(parts)
            counts[kind, "asked"] += 1
            try:
                asked, text = ask(parts, len(greedy))
            except Exception as error:
                self.wrong.append(f"{door} {name}: {type(error).__name__} {str(error)[:160]}")
                continue
            if asked == ids or asked == len(ids):
                counts[kind, "ids"] += 1
            else:
                own = asked if isinstance(asked, int) else len(asked)
                self.wrong.append(f"{door} {name}: {own} ids, transformers has {len(ids)}")
            # a server takes white space from the ends
            expected = self.tokens.decode(greedy, skip_special_tokens=False).strip()
            if not greedy or text.strip() == expected:
                counts[kind, "greedy"] += 1
            else:
                self.wrong.append(f"{door} {name}: {text!r}, transformers says {expected!r}")
        print(self.row(door), flush=True)

    def row(self, door: str) -> str:
        counts = self.counts[door]
        kinds = dict.fromkeys(kind for kind, what in counts if what == "asked")
        cells = [
            f"{kind} {counts[kind, 'ids']} {counts[kind, 'greedy']} / {counts[kind, 'asked']}"
            for kind in kinds
        ]
        return f"| {door} | {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hosts.media_table", description=__doc__)
    parser.add_argument("doors", nargs="*", metavar="DOOR", help="python, " + ", ".join(_SERVERS))
    parser.add_argument("--some", action="store_true", help="every seventh question")
    options = parser.parse_args()
    if not REFERENCE.is_file():
        print(f"no {REFERENCE.name}: python -m tests.reference.make_media_table writes it (torch)")
        return 2
    there = importlib.util.find_spec
    doors = options.doors or [
        *(["python", "mlx_vlm"] if there("mlx_vlm") else []),
        *(["vllm_mlx", "vllm_mlx_batching"] if there("vllm_mlx") else []),
    ]
    mlx_gemma4_patches.activate()
    print("of each kind: equal ids, equal greedy tokens / asked", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = save(Path(name) / "gemma-4-tiny")
        reference = mx.load(str(REFERENCE))
        table = Table(reference, folder / "tokenizer.json", 7 if options.some else 1)
        for door in doors:
            if door == "python":
                table.fill(door, python_door(folder))
                continue
            host, arguments = _SERVERS[door]
            with serve(host, folder, *arguments) as server:
                table.fill(door, http_door(server, folder, host))
    print(*table.wrong, sep="\n")
    return 1 if table.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
