"""Write transformers' greedy answers to short texts: answers.json, here.

    pip install torch transformers safetensors 'mlx[cpu]'
    python -m tests.reference.make_answers

``{shape: {prompt: [24 token ids]}}``: what follows the prompt's own ids, as tests.hosts.tokenizer
has them, with no stop.
"""

import json
import tempfile
from pathlib import Path

import torch
import transformers

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts import tokenizer

FILE = Path(__file__).parent / "answers.json"
SHAPES = ("e2b", "dense")
TOKENS = 24
MARGIN = 0.02  # of the best two logits: rounding gives 1e-4
# None is answered with a special token, or within the margin.
PROMPTS = (
    "One more",
    "A long story",
    "Some words that do not fit into one window",
    "The longest prompt of all is several windows long, so that its oldest keys are gone for good",
)


@torch.no_grad()
def make(shape: str) -> dict[str, list[int]]:
    with tempfile.TemporaryDirectory() as folder:
        model = transformers.Gemma4ForConditionalGeneration.from_pretrained(
            tiny.save(shape, folder), dtype=torch.float32
        ).eval()
    made = {}
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer.ids(prompt)])
        generated = model.generate(
            ids,
            max_new_tokens=TOKENS,
            do_sample=False,
            eos_token_id=None,
            output_scores=True,
            return_dict_in_generate=True,
        )
        best = torch.cat(generated.scores).topk(2).values
        assert (best[:, 0] - best[:, 1]).min() > MARGIN, prompt
        made[prompt] = generated.sequences[0, ids.shape[1] :].tolist()
        assert not set(made[prompt]) & set(tokenizer.SPECIAL), prompt
    return made


if __name__ == "__main__":
    FILE.write_text(json.dumps({shape: make(shape) for shape in SHAPES}) + "\n")
