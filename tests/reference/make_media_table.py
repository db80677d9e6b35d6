"""Write what transformers makes of media_cases.py: media_table.safetensors, here.

    pip install torch torchvision transformers safetensors pillow opencv-python-headless 'mlx[cpu]'
    python -m tests.reference.make_media_table

``ids_*`` (L,) int32 and ``greedy_*`` (0 to 8,) int32, as make_media.py has them. Pillow resizes
the pictures, as in transformers without torchvision: its two ways differ by up to 2 of 255, and the
answers of random models with them.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

from mlx_gemma4_patches.gemma4 import tiny, tiny_audio
from tests.hosts import tokenizer
from tests.reference import make_media, media_cases
from tests.reference.conversations import Medium

FILE = Path(__file__).parent / "media_table.safetensors"
make_media.GREEDY, make_media.FEWEST = 8, 0


def inputs(processor: Any, parts: list) -> Any:
    content = [
        {"type": part.kind} if isinstance(part, Medium) else {"type": "text", "text": part}
        for part in parts
    ]
    named = {
        kind: [p.name for p in parts if isinstance(p, Medium) and p.kind == kind]
        for kind in media_cases.MEDIA
    }
    videos = [media_cases.frames(name).transpose(0, 3, 1, 2) for name in named["video"]]
    about = [
        {
            "total_num_frames": len(v),
            "fps": media_cases.RATE,
            "duration": len(v) / media_cases.RATE,
            "frames_indices": list(range(len(v))),
        }
        for v in videos
    ]
    sounds = [media_cases.sound(name).astype(np.float32) / 32768 for name in named["audio"]]
    return processor(
        text=processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        ),
        images=[media_cases.picture(name) for name in named["image"]] or None,
        audio=sounds or None,
        videos=videos or None,
        **({"video_metadata": about} if videos else {}),
        add_special_tokens=False,
        return_tensors="pt",
    )


def make() -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        tiny_audio.add_to(tiny.save("e2b", folder))
        tokenizer.save(Path(folder))
        model = transformers.Gemma4ForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32
        ).eval()
        processor = transformers.Gemma4Processor(
            feature_extractor=transformers.Gemma4AudioFeatureExtractor(),
            image_processor=Gemma4ImageProcessorPil(),
            tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
            video_processor=transformers.Gemma4VideoProcessor(),
            chat_template=tokenizer.TEMPLATE,
        )
    made: dict[str, np.ndarray] = {}
    for name, parts in media_cases.CONVERSATIONS.items():
        case = {k: v for k, v in inputs(processor, parts).items() if k != "video_metadata"}
        made |= make_media.answered(model, case, name)
    return made


if __name__ == "__main__":
    source = {"source": f"transformers {transformers.__version__}, torch {torch.__version__}"}
    made = {name: np.ascontiguousarray(values) for name, values in make().items()}
    save_file(made, FILE, metadata=source)
