"""Write what ``trace`` compares hosts with: one .safetensors a shape, in the package.

    pip install torch transformers safetensors 'mlx[cpu]'
    python -m tests.reference.make_trace

Each file holds for the references ``text``, ``image``, ``drafts`` and, of e2b, ``sound``:
``REFERENCE/ids`` (L,) int32, and under ``REFERENCE/TENSOR`` the values of that tensor that
``cases.sampled`` names, float32. They are computed in float64: transformers' rounding in float32
and in bfloat16 is measured against them, and stored in the metadata, beside each tensor's size:
``[positions, width, error in float32, of the last position alone, error in bfloat16, of the last
position alone]``, in the order of the way through the model. An error is the root mean square of
the difference over that of the tensor.

``drafts`` is the first block of an assistant: its tensors have a position for each draft, and its
ids are the prompt, the target's next token and the drafts.

``12b`` is the text of shape ``dense`` under an image that stands for its embeddings,
``image/features`` (soft tokens, hidden). transformers has two rules for it, see
``gemma4/vision_mask.py``: the stored numbers have the masks that ``create_masks_for_generate``
makes, and ``disagreement`` in the metadata names the first tensor that ``forward`` by itself
computes otherwise, and by how much.
"""

import contextlib
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from transformers import modeling_rope_utils
from transformers.models.gemma4 import modeling_gemma4
from transformers.models.gemma4_assistant import modeling_gemma4_assistant
from transformers.models.gemma4_unified import modeling_gemma4_unified

from mlx_gemma4_patches.gemma4 import tiny, tiny_assistant, tiny_audio
from mlx_gemma4_patches.trace import cases, torch_taps
from tests.reference.make import patchify
from tests.reference.make_assistants import first_drafts

SEED = {"e2b": 8, "moe": 8, "dense": 8}
MARGIN = 0.3  # that rounding to bfloat16 does not swap the best two drafts
BOI, EOI, IMAGE, BOA, AUDIO, EOA = 500, 501, 502, 504, 505, 506


class _Doubling:
    """torch, whose float32 is float64."""

    float = float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextlib.contextmanager
def in_double() -> Iterator[None]:
    """transformers computes in float64 what it takes to float32 in every model."""
    with (
        mock.patch.object(modeling_gemma4, "torch", _Doubling()),
        mock.patch.object(modeling_gemma4_assistant, "torch", _Doubling()),
        mock.patch.object(modeling_gemma4_unified, "torch", _Doubling()),
        mock.patch.object(modeling_rope_utils, "torch", _Doubling()),
        mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        yield


def computing_in(dtype: torch.dtype) -> contextlib.AbstractContextManager[None]:
    return in_double() if dtype is torch.float64 else contextlib.nullcontext()


def load(folder: str, dtype: torch.dtype) -> Any:
    model, loading = transformers.Gemma4ForConditionalGeneration.from_pretrained(
        folder, dtype=dtype, output_loading_info=True, experts_implementation="eager"
    )
    assert not any(loading.values()), loading
    return model.eval()


def inputs(reference: str, shape: str, dtype: torch.dtype, ids: list[int]) -> dict[str, Any]:
    made: dict[str, Any] = {"input_ids": torch.tensor([ids])}
    if reference == "image":
        values, places = patchify(tiny.image(*cases.IMAGE))
        made["pixel_values"] = torch.tensor(values)[None].to(dtype)
        made["image_position_ids"] = torch.tensor(places)[None]
        made["mm_token_type_ids"] = (made["input_ids"] == IMAGE).int()
    if reference == "sound":
        made["input_features"] = torch.tensor(cases.frames()).to(dtype)
        made["input_features_mask"] = torch.ones(1, cases.FRAMES, dtype=torch.bool)
    return made


@torch.no_grad()
def ids_of(model: Any, reference: str, shape: str) -> list[int]:
    text = tiny.prompt(cases.LENGTH, SEED[shape])
    if reference == "text":
        first, question = text[: cases.PROMPT], text[cases.PROMPT + cases.SAID :]
        said = model.generate(
            torch.tensor([first]), max_new_tokens=cases.SAID, do_sample=False, eos_token_id=None
        )
        return [*said[0].tolist(), *question]
    if reference == "image":
        rows, columns = cases.IMAGE
        return [*text[:6], BOI, *[IMAGE] * (rows * columns), EOI, *text[6:20]]
    return [*text[:6], BOA, *[AUDIO] * (cases.FRAMES // 4), EOA, *text[6:20]]


@torch.no_grad()
def tensors(model: Any, **case: Any) -> dict[str, np.ndarray]:
    """(positions, width) float64 of everything on the way."""
    made: dict[str, np.ndarray] = {}

    def keep(name: str, value: torch.Tensor) -> None:
        made[name] = value.detach().to(torch.float64).flatten(1).numpy().copy()

    text = model.model.language_model
    for index, layer in enumerate(text.layers):
        torch_taps.watch_layer(layer, index, keep)
    torch_taps.watch_norm(text.norm, keep)
    if model.model.embed_vision is not None:
        torch_taps.watch_media(model.model.embed_vision, "image features", keep)
    if model.model.embed_audio is not None:
        torch_taps.watch_media(model.model.embed_audio, "sound features", keep)
    keep("logits", model(**case).logits[0, -1:])
    return made


def distances(values: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """The error of all positions, and of the last."""
    scale = np.square(truth).mean()
    off = np.square(values - truth)
    return float(np.sqrt(off.mean() / scale)), float(np.sqrt(off[-1].mean() / scale))


def references(shape: str) -> list[str]:
    all_cases = (case for host in cases.WAYS for case in cases.of_host(host))
    return list(dict.fromkeys(case.reference for case in all_cases if case.shape == shape))


def stored(reference: str, runs: list[dict[str, np.ndarray]]) -> tuple[dict[str, Any], Any]:
    """What is kept of the runs in float64, float32 and bfloat16, and the sizes of it."""
    truth, single, half = runs
    made, sizes = {}, {}
    for tensor, value in truth.items():
        errors = [e for run in (single, half) for e in distances(run[tensor], value)]
        sizes[tensor] = [*value.shape, *(float(f"{e:.3g}") for e in errors)]
        kept = value.ravel()[cases.sampled(*value.shape)]
        made[f"{reference}/{tensor}"] = kept.astype(np.float32)
        print(reference, tensor, value.shape, errors)
    return made, sizes


DTYPES = (torch.float64, torch.float32, torch.bfloat16)


def make(shape: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    made, sizes = {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = str(tiny.save(shape, name))
        if shape == "e2b":
            tiny_audio.add_to(Path(folder))
        plain = load(folder, torch.float32)
        for reference in references(shape):
            if reference == "drafts":
                ids, runs = drafts(shape, folder)
            else:
                ids, runs = ids_of(plain, reference, shape), []
                for dtype in DTYPES:
                    with computing_in(dtype):
                        model = load(folder, dtype)
                        runs.append(tensors(model, **inputs(reference, shape, dtype, ids)))
            made[f"{reference}/ids"] = np.array(ids, np.int32)
            kept, sizes[reference] = stored(reference, runs)
            made |= kept
    return made, {"tensors": sizes}


def drafts(shape: str, folder: str) -> tuple[list[int], list[dict[str, np.ndarray]]]:
    """Of the first prompt whose drafts no rounding changes: its ids, and the tensors."""
    with tempfile.TemporaryDirectory() as assistant:
        tiny_assistant.save(shape, assistant)
        single, double, half = (
            drafting(folder, assistant, dtype)
            for dtype in (torch.float32, torch.float64, torch.bfloat16)
        )
    for seed in range(200):
        prompt = tiny.prompt(cases.PROMPT, seed)
        blocks = [single(prompt)]
        if blocks[0].margin > MARGIN:
            blocks = [double(prompt), *blocks, half(prompt)]
            if all(block.ids == blocks[0].ids for block in blocks):
                return blocks[0].ids, [block.tensors for block in blocks]
    raise RuntimeError(f"no prompt of {shape} has the same drafts in every dtype")


class Block(NamedTuple):
    """An assistant's first block: ids, the least distance of its best two logits, tensors."""

    ids: list[int]
    margin: float
    tensors: dict[str, np.ndarray]


def drafting(
    folder: str, assistant_folder: str, dtype: torch.dtype
) -> Callable[[list[int]], Block]:
    """What gives the first block of a prompt."""
    pieces: dict[str, list[np.ndarray]] = defaultdict(list)

    def keep(name: str, value: torch.Tensor) -> None:
        pieces[name].append(value.detach().to(torch.float64).flatten(1).numpy().copy())

    with computing_in(dtype):
        target = load(folder, dtype)
        assistant = transformers.Gemma4AssistantForCausalLM.from_pretrained(
            assistant_folder, dtype=dtype
        ).eval()
    torch_taps.watch_assistant(assistant, keep)

    def draft(prompt: list[int]) -> Block:
        pieces.clear()
        with computing_in(dtype):
            block = first_drafts(target, assistant, prompt, cases.DRAFTS)
        ids = [*prompt, block["first"], *block["drafts"]]
        tensors = {name: np.concatenate(of[: cases.DRAFTS]) for name, of in pieces.items()}
        return Block(ids, block["margin"], tensors)

    return draft


@torch.no_grad()
def make_12b() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    rows, columns = cases.IMAGE
    text = tiny.prompt(cases.LENGTH, SEED["dense"])
    ids = [*text[:6], BOI, *[IMAGE] * (rows * columns), EOI, *text[6:20]]
    features = tiny.unit("12b", (rows * columns, 192)) * 2 - 1
    runs = []
    for dtype in DTYPES:
        with computing_in(dtype):
            model = unified(dtype)
            case = {"mm_token_type_ids": (torch.tensor([ids]) == IMAGE).int()}
            embeddings = model.get_input_embeddings()(torch.tensor([ids]))
            embeddings[case["mm_token_type_ids"] == 1] = torch.tensor(features).to(dtype)
            positions = torch.arange(len(ids))[None]
            masks = model.create_masks_for_generate(
                model.config, embeddings, None, None, positions, **case
            )
            runs.append(tensors(model, inputs_embeds=embeddings, attention_mask=masks))
            if dtype is torch.float64:
                by_itself = tensors(unified(dtype), inputs_embeds=embeddings, **case)
    made, sizes = stored("image", runs)
    made |= {"image/ids": np.array(ids, np.int32), "image/features": features.astype(np.float32)}
    off = {name: distances(by_itself[name], value)[0] for name, value in runs[0].items()}
    first = next(name for name, error in off.items() if error > 1e-6)
    print("12b disagrees", off)
    return made, {
        "tensors": {"image": sizes},
        "disagreement": {"tensor": first, "error": off[first], "logits": off["logits"]},
    }


def unified(dtype: torch.dtype) -> Any:
    settings = tiny.config("dense")
    settings |= {"model_type": "gemma4_unified", "vision_config": None}
    settings["text_config"]["model_type"] = "gemma4_unified_text"
    del settings["architectures"]
    config = transformers.Gemma4UnifiedConfig.from_dict(settings)
    model = transformers.Gemma4UnifiedForConditionalGeneration(config).eval()
    weights = {
        name: torch.tensor(np.array(value))
        for name, value in tiny.weights("dense").items()
        if name.startswith("model.language_model.")
    }
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert set(missing) == {"lm_head.weight"} and not unexpected, (missing, unexpected)
    model.tie_weights()
    return model.to(dtype)


if __name__ == "__main__":
    source = f"transformers {transformers.__version__}, torch {torch.__version__}"
    for shape in (*tiny.SHAPES, "12b"):
        made, about = make_12b() if shape == "12b" else make(shape)
        metadata = {"about": json.dumps({"source": source, **about})}
        file = cases.FOLDER / f"{shape}.safetensors"
        save_file(made, file, metadata=metadata)
        file.chmod(0o644)
