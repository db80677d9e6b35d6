"""How many answers about sounds, pictures and videos are those of transformers, door by door.

    python -m tests.hosts.media_table [DOOR ...] [--some]

20 sounds, 20 pictures and 6 videos, alone and in pairs, with a tiny random E2B. The doors: python
(``mlx_vlm.stream_generate``), python_batches (``mlx_vlm.batch_generate``, two questions of a kind
at once; it takes one picture, sound and video a row), mlx_vlm (its server), mlx_lm (its server,
pictures alone), vllm_mlx (its server as it starts by itself), vllm_mlx_mllm and vllm_mlx_batching.
Without any named, those of the installed hosts. A server tells the number of a prompt's ids, not
the ids.
``--some`` asks every seventh question.

An answer counts up to markup, and as far as transformers has no two tokens of one rank to 0.01; of
some nothing is left to compare.
Videos are sampled as transformers does, which ``mlx_vlm.video_frames`` is opted into for.
"""

from __future__ import annotations

import argparse
import base64
import functools
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
    "mlx_lm": ("mlx_lm", []),
    "mlx_vlm": ("mlx_vlm", []),
    "vllm_mlx": ("vllm_mlx", []),
    "vllm_mlx_mllm": ("vllm_mlx", ["--mllm"]),
    "vllm_mlx_batching": ("vllm_mlx", ["--mllm", "--continuous-batching"]),
}
# how many ids or the ids, and the text
Answer = tuple[Any, str]


def save(folder: Path) -> Path:
    """The checkpoint and the files of all media."""
    folder.mkdir()
    tokenizer.save(folder)
    tiny_audio.add_to(tiny.save("e2b", folder))
    media_cases.write(folder)
    return folder


def kind_of(parts: list) -> str:
    """Such as "audio" or "audio + image"."""
    return " + ".join(part.kind for part in parts if isinstance(part, Medium))


KINDS = list(dict.fromkeys(map(kind_of, media_cases.CONVERSATIONS.values())))


class Python:
    """mlx-vlm in this process; its answers have the ids."""

    def __init__(self, folder: Path, reference: dict[str, mx.array]):
        self.folder = folder
        self.reference = reference
        self.utils, self.generate, self.prompt_utils = (
            importlib.import_module(f"mlx_vlm.{name}")
            for name in ("utils", "generate", "prompt_utils")
        )
        self.model, self.processor = self.utils.load(str(folder))

    def alone(self, parts: list, count: int) -> Answer:
        prompt, files = self._prompt(parts), self._files(parts)
        steps = self.generate.stream_generate(
            self.model,
            self.processor,
            prompt,
            max_tokens=max(count, 1),
            temperature=0.0,
            **{kind: named or None for kind, named in files.items()},
        )
        return self._ids(prompt, files), "".join(step.text for step in steps)

    def in_batches(self, parts: list, count: int) -> Answer:
        alike = [
            name
            for name, row in media_cases.CONVERSATIONS.items()
            if kind_of(row) == kind_of(parts)
        ]
        place = [media_cases.CONVERSATIONS[name] for name in alike].index(parts)
        first = place // 2 * 2
        texts = self._batch(tuple(alike[first : first + 2]))
        return self._ids(self._prompt(parts), self._files(parts)), texts[place - first]

    @functools.cache  # noqa: B019 - once for both rows
    def _batch(self, names: tuple[str, ...]) -> list[str]:
        rows = [media_cases.CONVERSATIONS[name] for name in names]
        return self.generate.batch_generate(
            self.model,
            self.processor,
            prompts=[_messages(row) for row in rows],
            max_tokens=[max(len(_greedy(self.reference, name)), 1) for name in names],
            **{
                f"{kind}s": [file for row in rows for file in _files(row, kind, self.folder)]
                or None
                for kind in media_cases.MEDIA
            },
        ).texts

    def _files(self, parts: list) -> dict[str, list[str]]:
        return {kind: _files(parts, kind, self.folder) for kind in media_cases.MEDIA}

    def _prompt(self, parts: list) -> str:
        files = self._files(parts)
        return self.prompt_utils.apply_chat_template(
            self.processor,
            self.model.config,
            _messages(parts),
            num_images=len(files["image"]),
            num_audios=len(files["audio"]),
            **({"video": files["video"]} if files["video"] else {}),
        )

    def _ids(self, prompt: str, files: dict[str, list[str]]) -> list[int]:
        inputs = self.utils.prepare_inputs(
            self.processor,
            images=files["image"] or None,
            audio=files["audio"] or None,
            videos=files["video"] or None,
            prompts=prompt,
        )
        return inputs["input_ids"][0].tolist()


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


def _messages(parts: list) -> list[dict[str, Any]]:
    content = [
        {"type": part.kind} if isinstance(part, Medium) else {"type": "text", "text": part}
        for part in parts
    ]
    return [{"role": "user", "content": content}]


def _files(parts: list, kind: str, folder: Path) -> list[str]:
    media = [part for part in parts if isinstance(part, Medium) and part.kind == kind]
    return [str(folder / f"{medium.name}.{_ENDS[kind]}") for medium in media]


def _greedy(reference: dict[str, mx.array], name: str) -> list[int]:
    """What transformers says, up to markup, which a server takes out."""
    said = reference[f"greedy_{name}"].tolist()
    return list(itertools.takewhile(lambda token: token not in tokenizer.SPECIAL, said))


def takes(door: str, parts: list) -> bool:
    """Whether the door has a way in for these media."""
    kinds = [part.kind for part in parts if isinstance(part, Medium)]
    if door == "mlx_lm":
        return set(kinds) == {"image"}
    # one medium of a kind in a row
    return len(set(kinds)) == len(kinds) if door == "python_batches" else True


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
            if not takes(door, parts):
                continue
            ids = self.reference[f"ids_{name}"].tolist()
            greedy = _greedy(self.reference, name)
            kind = kind_of(parts)
            counts[kind, "asked"] += 1
            counts[kind, "compared"] += bool(greedy)
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
            if text.strip() == expected:
                counts[kind, "greedy"] += bool(greedy)
            elif greedy:
                self.wrong.append(f"{door} {name}: {text!r}, transformers says {expected!r}")
        print(self.row(door), flush=True)

    def row(self, door: str) -> str:
        counts = self.counts[door]
        cells = [
            "{}/{} {}/{}".format(
                *(counts[kind, what] for what in ("ids", "asked", "greedy", "compared"))
            )
            if counts[kind, "asked"]
            else ""
            for kind in KINDS
        ]
        return f"| {door} | {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hosts.media_table", description=__doc__)
    parser.add_argument(
        "doors", nargs="*", metavar="DOOR", help="python, python_batches, " + ", ".join(_SERVERS)
    )
    parser.add_argument("--some", action="store_true", help="every seventh question")
    options = parser.parse_args()
    if not REFERENCE.is_file():
        print(f"no {REFERENCE.name}: python -m tests.reference.make_media_table writes it (torch)")
        return 2
    there = importlib.util.find_spec
    doors = options.doors or [
        *(["python", "python_batches", "mlx_vlm"] if there("mlx_vlm") else []),
        *(["mlx_lm"] if there("mlx_lm.processors") else []),
        *(["vllm_mlx", "vllm_mlx_mllm", "vllm_mlx_batching"] if there("vllm_mlx") else []),
    ]
    mlx_gemma4_patches.activate()
    print("of each kind: equal ids/asked, equal greedy tokens/compared")
    print(f"| | {' | '.join(KINDS)} |\n|{'---|' * (len(KINDS) + 1)}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = save(Path(name) / "gemma-4-tiny")
        reference = mx.load(str(REFERENCE))
        table = Table(reference, folder / "tokenizer.json", 7 if options.some else 1)
        for door in doors:
            if door.startswith("python"):
                python = Python(folder, reference)
                table.fill(door, python.alone if door == "python" else python.in_batches)
                continue
            host, arguments = _SERVERS[door]
            with serve(host, folder, *arguments) as server:
                server.patience = 600  # on a busy machine a video takes minutes
                table.fill(door, http_door(server, folder, host))
    print(*table.wrong, sep="\n")
    return 1 if table.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
