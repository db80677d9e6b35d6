"""Write what transformers makes of sounds and pictures: media.safetensors, here.

    pip install torch torchvision transformers safetensors pillow 'mlx[cpu]'
    python -m tests.reference.make_media

For every conversation of conversations.py, with shape e2b and an audio tower: ``ids_*`` (L,) int32
and ``greedy_*`` (4 to 12,) int32, the tokens that follow, up to one
that ends an answer, stands for media, or could be another by rounding. And

- ``sound_tokens`` (lengths,) int32, ``unified_sound_tokens``: soft tokens of LENGTHS, for E2B and
  for the 12B;
- ``picture_tokens`` (budgets, sizes) int32: soft tokens of SIZES at each of BUDGETS;
- ``rows_*`` (soft tokens, hidden) float32: the sounds "short", "long" and "odd" as they enter the
  text model.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

from mlx_gemma4_patches.gemma4 import tiny, tiny_audio
from mlx_gemma4_patches.gemma4.soft_tokens import BUDGETS
from tests.hosts import tokenizer
from tests.reference import conversations
from tests.reference.conversations import CONVERSATIONS, LENGTHS, SIZES, Medium

FILE = Path(__file__).parent / "media.safetensors"
GREEDY = 12
FEWEST = 4
MARGIN = 0.01  # of the best two logits: rounding gives 1e-4
_ENDS = {1, 50, 106, *tiny.MEDIA_IDS}


def heard(name: str) -> np.ndarray:
    return conversations.pcm(name).astype(np.float32) / 32768


def make_processor(folder: str, extractor: Any) -> Any:
    return transformers.Gemma4Processor(
        feature_extractor=extractor,
        image_processor=transformers.Gemma4ImageProcessor(),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
        video_processor=transformers.Gemma4VideoProcessor(),
        chat_template=tokenizer.TEMPLATE,
    )


def inputs(processor: Any, name: str) -> Any:
    messages = [
        {
            "role": role,
            "content": [
                {"type": part.kind} if isinstance(part, Medium) else {"type": "text", "text": part}
                for part in parts
            ],
        }
        for role, parts in CONVERSATIONS[name]
    ]
    return processor(
        text=processor.apply_chat_template(messages, add_generation_prompt=True),
        images=[conversations.picture(n) for n in conversations.media(name, "image")] or None,
        audio=[heard(n) for n in conversations.media(name, "audio")] or None,
        add_special_tokens=False,
        return_tensors="pt",
    )


@torch.no_grad()
def answered(model: Any, case: Any, name: str) -> dict[str, np.ndarray]:
    case = {k: v for k, v in case.items() if not k.startswith("num_soft")}
    ids = case["input_ids"]
    generated = model.generate(
        **case,
        max_new_tokens=GREEDY,
        do_sample=False,
        eos_token_id=None,
        output_scores=True,
        return_dict_in_generate=True,
    )
    best = torch.cat(generated.scores).topk(2).values
    close = ((best[:, 0] - best[:, 1]) < MARGIN).tolist()
    greedy = generated.sequences[0, ids.shape[1] :]
    bad = [c or token in _ENDS for c, token in zip(close, greedy.tolist(), strict=True)]
    greedy = greedy[: bad.index(True) if any(bad) else None]
    print(name, ids.shape[1], greedy.tolist())
    assert len(greedy) >= FEWEST, name
    return {
        f"ids_{name}": ids[0].numpy().astype(np.int32),
        f"greedy_{name}": greedy.numpy().astype(np.int32),
    }


def sound_tokens(extractor: Any, processor: Any) -> np.ndarray:
    counts = []
    for samples in LENGTHS:
        features = extractor([np.zeros(samples, np.float32)], return_tensors="np")
        counts.append(processor.replace_audio_token(features, 0).count("<|audio|>"))
    return np.array(counts, np.int32)


def picture_tokens(processor: Any) -> np.ndarray:
    return np.array(
        [
            [
                processor(torch.zeros(3, height, width, dtype=torch.uint8), max_soft_tokens=budget)[
                    "num_soft_tokens_per_image"
                ][0]
                for width, height in SIZES
            ]
            for budget in BUDGETS
        ],
        np.int32,
    )


@torch.no_grad()
def make() -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        tiny_audio.add_to(tiny.save("e2b", folder))
        tokenizer.save(Path(folder))
        model, loading = transformers.Gemma4ForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
        assert not any(loading.values()), loading
        extractor = transformers.Gemma4AudioFeatureExtractor()
        processor = make_processor(folder, extractor)
        unified = transformers.Gemma4UnifiedAudioFeatureExtractor()
        unified_processor = transformers.Gemma4UnifiedProcessor(
            feature_extractor=unified,
            image_processor=transformers.Gemma4UnifiedImageProcessor(),
            tokenizer=processor.tokenizer,
            video_processor=transformers.Gemma4UnifiedVideoProcessor(),
        )
    model.eval()
    made = {
        "sound_tokens": sound_tokens(extractor, processor),
        "unified_sound_tokens": sound_tokens(unified, unified_processor),
        "picture_tokens": picture_tokens(processor.image_processor),
    }
    for name in ("short", "long", "odd"):
        features = extractor([heard(name)], return_tensors="pt")
        rows = model.model.get_audio_features(
            features["input_features"], features["input_features_mask"], return_dict=True
        )
        made[f"rows_{name}"] = rows.pooler_output[rows.attention_mask].numpy()
    for name in CONVERSATIONS:
        made |= answered(model, inputs(processor, name), name)
    return made


if __name__ == "__main__":
    source = {"source": f"transformers {transformers.__version__}, torch {torch.__version__}"}
    made = {name: np.ascontiguousarray(values) for name, values in make().items()}
    save_file(made, FILE, metadata=source)
