"""The token that ends an answer is not part of its text."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import pytest

from mlx_gemma4_patches.patches.vllm_mlx import stop_text
from tests.hosts import batching, script, tokenizer
from tests.hosts.contract import PatchContract

pytest.importorskip("vllm_mlx")

ID = "vllm_mlx.stop_text"


def _outputs(model_type: str, tokens: list[int], reason: str) -> list[dict]:
    """What the scheduler makes of the tokens of one request; a token's text is its number."""
    from vllm_mlx.mllm_batch_generator import MLLMBatchResponse
    from vllm_mlx.mllm_scheduler import MLLMScheduler

    speaks = SimpleNamespace(
        eos_token_id=1,
        name_or_path="",
        clean_up_tokenization_spaces=False,
        encode=lambda text, **how: [0],
        decode=lambda ids: "".join(f"[{i}]" for i in ids),
    )
    model = SimpleNamespace(config=SimpleNamespace(model_type=model_type))
    scheduler = MLLMScheduler(model=model, processor=SimpleNamespace(tokenizer=speaks))
    request_id = scheduler.add_request("hi")
    scheduler.running[request_id] = scheduler.waiting.popleft()
    scheduler.uid_to_request_id[0] = request_id
    made = []
    for number, token in enumerate(tokens, 1):
        response = MLLMBatchResponse(
            uid=0,
            request_id=request_id,
            token=token,
            logprobs=mx.zeros(1),
            finish_reason=reason if number == len(tokens) else None,
        )
        ((output,), _) = scheduler._process_batch_responses([response])
        made.append({**vars(output), "request_id": None})
    return made


class TestStopText(PatchContract):
    id = ID

    def untouched(self):
        """Answers that are cut, and other models."""
        return _outputs("gemma4", [5, 6], "length"), _outputs("qwen2_5_vl", [5], "stop")


@pytest.mark.parametrize("stop", [106, 50])
def test_an_answer_says_what_comes_before_its_end(tmp_path, stop) -> None:
    folder = batching.save("dense", tmp_path / "gemma-4-tiny")
    with batching.engine(folder, enable_prefix_cache=False) as engine:
        for text in ("", "a", "so"):
            says = [*tokenizer.ids(text), stop, *tokenizer.ids("un")]
            with script.says("vllm_mlx", says):
                answer = engine.answer(batching.message("hi"), max_tokens=5)
            assert (answer.text, answer.finish_reason) == (text, "stop")


def test_a_scheduler_without_a_model_and_an_answer_without_tokens_are_left_alone() -> None:
    answer = SimpleNamespace(finish_reason="stop", output_token_ids=[], new_text="Hi")
    gemma4 = SimpleNamespace(config=SimpleNamespace(model_type="gemma4"))
    for scheduler in (SimpleNamespace(), SimpleNamespace(model=gemma4)):
        wrapped = stop_text.leaving_out_the_last(lambda self, responses: ([answer], {"id"}))
        assert wrapped(scheduler, []) == ([answer], {"id"})
    assert answer.new_text == "Hi"
