"""Write what transformers' assistants draft for the tiny checkpoints: assistants.json, here.

    pip install torch 'transformers>=5.24' safetensors 'mlx[cpu]'
    python -m tests.reference.make_assistants

(transformers 5.23 cannot make an assistant: ValueError.) For each shape and each length of a prompt
it holds the prompt, the token that the target says first, the ``DRAFTS`` tokens that the assistant
drafts behind it, and the least distance between the best two logits of these drafts.
"""

import json
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, Gemma4AssistantForCausalLM
from transformers.generation import candidate_generator

from mlx_gemma4_patches.gemma4 import tiny, tiny_assistant

DRAFTS, LENGTHS = 4, (6, 15, 16, 40)
FILE = Path(__file__).parent / "assistants.json"
MARGIN = 0.01  # rounding must not swap the best two


def first_drafts(target, assistant, prompt: list[int], count: int = DRAFTS) -> dict:
    """The first block of an assisted generation, of ``count`` drafts."""
    settings = assistant.generation_config
    settings.num_assistant_tokens = count
    settings.num_assistant_tokens_schedule = "constant"
    kind = candidate_generator.SinglePositionMultiTokenCandidateGenerator
    seen, original = [], kind.get_candidates

    def get_candidates(self, input_ids, *args, **kwargs):
        ids, logits = original(self, input_ids, *args, **kwargs)
        if logits is not None:
            seen.append((input_ids.shape[1], ids[0].tolist(), logits[0].detach()))
        return ids, logits

    kind.get_candidates = get_candidates
    try:
        target.generate(
            input_ids=torch.tensor([prompt]),
            assistant_model=assistant,
            max_new_tokens=count + 2,
            do_sample=False,
            eos_token_id=None,
        )
    finally:
        kind.get_candidates = original
    length, ids, logits = seen[0]
    best = logits.topk(2).values
    return {
        "prompt": prompt,
        "first": ids[len(prompt)],
        "drafts": ids[length : length + count],
        "margin": float((best[:, 0] - best[:, 1]).min()),
    }


def main() -> None:
    made: dict = {}
    for shape in tiny.SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            base = Path(folder)
            target = AutoModelForImageTextToText.from_pretrained(
                tiny.save(shape, base / "target"), dtype=torch.float32
            ).eval()
            assistant = Gemma4AssistantForCausalLM.from_pretrained(
                tiny_assistant.save(shape, base / "assistant"), dtype=torch.float32
            ).eval()
        made[shape] = {}
        for length in LENGTHS:
            for seed in range(20):
                case = first_drafts(target, assistant, tiny.prompt(length, seed))
                if case["margin"] > MARGIN:
                    break
            made[shape][str(length)] = case
            print(shape, length, case["first"], case["drafts"], case["margin"], flush=True)
    FILE.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
