"""Videos are seen without continuous batching as with it, and as in mlx-vlm."""

from __future__ import annotations

import importlib

import pytest

from mlx_gemma4_patches.hosts.vllm_mlx.video import film
from tests.hosts import batching
from tests.hosts.contract import PatchContract, patched, skip_unless_needed

mllm = pytest.importorskip("vllm_mlx.models.mllm")
pytest.importorskip("cv2")
gemma4 = pytest.importorskip("mlx_vlm.models.gemma4.processing_gemma4")
if not hasattr(gemma4, "Gemma4VideoProcessor"):
    pytest.skip("this mlx-vlm takes no videos", allow_module_level=True)

ID = "vllm_mlx.video_generate"


def asked(text: str) -> list[dict]:
    part = {"type": "video_url", "video_url": {"url": film()}}
    return [{"role": "user", "content": [{"type": "text", "text": text}, part]}]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = batching.save("dense", tmp_path_factory.mktemp("video") / "gemma-4")
    made = mllm.MLXMultimodalLM(str(folder))
    made.load()
    return made


class TestVideoGenerate(PatchContract):
    id = ID

    @pytest.fixture(autouse=True)
    def _model(self, model) -> None:
        self.model = model

    def untouched(self):
        how = {"max_tokens": 5, "temperature": 0.0}
        return [
            self.model.chat([batching.message("hello")], **how).text,
            self.model.chat([batching.message("hi", batching.image(0))], **how).text,
        ]


def test_it_is_seen_as_in_mlx_vlm(model, tmp_path) -> None:
    skip_unless_needed(ID)
    (tmp_path / "film.avi").write_bytes(mllm.base64.b64decode(film().partition(",")[2]))
    generate = importlib.import_module("mlx_vlm.generate")
    prompt_utils = importlib.import_module("mlx_vlm.prompt_utils")
    turn = {
        "role": "user",
        "content": [{"type": "text", "text": "what"}, {"type": "video", "video": "-"}],
    }
    prompt = prompt_utils.get_chat_template(model.processor, [turn], True)
    how = {"max_tokens": 6, "temperature": 0.0}
    with patched(ID):
        answer = model.chat(asked("what"), **how)
        streamed = list(model.stream_chat(asked("what"), **how))
    parts = list(
        generate.stream_generate(
            model.model, model.processor, prompt, video=[str(tmp_path / "film.avi")], **how
        )
    )
    text = "".join(part.text for part in parts)
    assert answer.text == text
    assert "".join(part.text for part in streamed) == text
    assert answer.prompt_tokens == parts[-1].prompt_tokens
    assert answer.finish_reason == "length"
