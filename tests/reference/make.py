"""Write transformers' numbers for the tiny checkpoints: one .safetensors per shape, here.

    pip install torch transformers safetensors 'mlx[cpu]'
    python -m tests.reference.make

Each file holds, float32 and int32, for the prompts ``8`` and ``40`` (past the window of 16), for
``images`` (two images in one prompt, A of 3 x 4 and B of 6 x 4 soft tokens, the second larger than
the window) and for ``adjacent`` (the same, without text between the images):

- ``ids_*`` (L,), ``logits_*`` (L, vocabulary), ``greedy_*`` (24,): the tokens that follow, no stop;
  of ``adjacent`` the logits of the last four positions;
- ``hidden_40`` (layers + 1, 4, hidden): the last four positions, of the embeddings, of each layer's
  output but the last's, and of the last norm's;
- ``features_images`` (36, hidden): the soft tokens of A, then of B, as they enter the text model.

The images are ``tiny.image(3, 4, seed=0)`` and ``tiny.image(6, 4, seed=1)``.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

from mlx_gemma4_patches.gemma4 import tiny

FOLDER = Path(__file__).parent
GREEDY = 24
# Greedy tokens are only worth comparing where rounding cannot swap the best two.
MARGIN = 0.03
# Prompts whose greedy continuations keep that margin in all three shapes.
SEEDS = {8: 11, 40: 8, "images": 5, "adjacent": 4}
BOI, EOI, IMAGE = 500, 501, 502


def text_case(n: int) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.tensor([tiny.prompt(n, SEEDS[n])])}


def image_case(name: str) -> dict[str, torch.Tensor]:
    text = tiny.prompt(28, SEEDS[name])
    before, between, after = text[:6], text[6:16], text[16:]
    if name == "adjacent":
        between = []
    ids = [*before, BOI, *[IMAGE] * 12, EOI, *between, BOI, *[IMAGE] * 24, EOI, *after]
    input_ids = torch.tensor([ids])
    patches = [patchify(tiny.image(3, 4, seed=0)), patchify(tiny.image(6, 4, seed=1))]
    longest = max(len(values) for values, _ in patches)

    def stack(arrays: list[np.ndarray], padding: int) -> torch.Tensor:
        padded = [
            np.pad(a, ((0, longest - len(a)), (0, 0)), constant_values=padding) for a in arrays
        ]
        return torch.tensor(np.stack(padded))

    return {
        "input_ids": input_ids,
        "mm_token_type_ids": (input_ids == IMAGE).int(),
        "pixel_values": stack([values for values, _ in patches], 0),
        "image_position_ids": stack([places for _, places in patches], -1),
    }


def patchify(image: np.ndarray, side: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """(patches, side * side * 3) values and (patches, 2) places x, y of a (3, H, W) image."""
    _, height, width = image.shape
    rows, columns = height // side, width // side
    values = image.reshape(3, rows, side, columns, side).transpose(1, 3, 2, 4, 0)
    y, x = np.divmod(np.arange(rows * columns), columns)
    return values.reshape(rows * columns, -1), np.stack([x, y], -1)


@torch.no_grad()
def numbers(model: Any, case: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    ids = case["input_ids"]
    generated = model.generate(
        **case,
        max_new_tokens=GREEDY,
        do_sample=False,
        eos_token_id=None,
        output_scores=True,
        return_dict_in_generate=True,
    )
    greedy = generated.sequences[0, ids.shape[1] :]
    best = torch.cat(generated.scores).topk(2).values
    margin = float((best[:, 0] - best[:, 1]).min())
    assert margin > MARGIN, f"choose another seed: the best two logits are {margin:.4f} apart"
    assert not set(greedy.tolist()) & set(tiny.MEDIA_IDS)
    return {
        "ids": ids[0].numpy().astype(np.int32),
        "logits": model(**case).logits[0].numpy(),
        "greedy": greedy.numpy().astype(np.int32),
    }


@torch.no_grad()
def make(shape: str) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        model, loading = transformers.Gemma4ForConditionalGeneration.from_pretrained(
            tiny.save(shape, folder), dtype=torch.float32, output_loading_info=True
        )
    assert not any(loading.values()), loading
    model.eval()
    images = image_case("images")
    cases = {"8": text_case(8), "40": text_case(40), "images": images}
    cases["adjacent"] = image_case("adjacent")
    made = {
        f"{what}_{name}": values
        for name, case in cases.items()
        for what, values in numbers(model, case).items()
    }
    made["logits_adjacent"] = made["logits_adjacent"][-4:]
    hidden = model(**cases["40"], output_hidden_states=True).hidden_states
    made["hidden_40"] = torch.stack([h[0, -4:] for h in hidden]).numpy()
    features = model.get_image_features(images["pixel_values"], images["image_position_ids"])
    made["features_images"] = torch.cat(tuple(features.pooler_output)).numpy()
    return {name: np.ascontiguousarray(values) for name, values in made.items()}


if __name__ == "__main__":
    # One entry: safetensors writes several in any order.
    source = {"source": f"transformers {transformers.__version__}, torch {torch.__version__}"}
    for shape in tiny.SHAPES:
        save_file(make(shape), FOLDER / f"{shape}.safetensors", metadata=source)
