"""An empty answer shows the token that ends it.

What the user sees, with continuous batching: ``<turn|>`` or ``<|tool_response>`` for an answer
where Gemma 4 ends its turn at once. 0.2.7 has it at the end of every answer.

Why: what the detokenizer has made leaves the last token out, but where it was never asked for
anything, the tokens are decoded with the one that stops.

The fix: the text of such an answer is that of the tokens before the last. It can be deleted when
vllm-mlx leaves the last token out there too.
"""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx

from ...hosts.vllm_mlx.models import is_gemma4
from ...patch import Finding, Patch
from ...surgery import Surgery

_PROCESS = "vllm_mlx.mllm_scheduler:MLLMScheduler._process_batch_responses"


def probe() -> Finding:
    from vllm_mlx.mllm_batch_generator import MLLMBatchResponse
    from vllm_mlx.mllm_scheduler import MLLMScheduler

    tokenizer = SimpleNamespace(
        eos_token_id=1, name_or_path="", decode=lambda ids: "<turn|>" * len(ids)
    )
    model = SimpleNamespace(config=SimpleNamespace(model_type="gemma4"))
    scheduler = MLLMScheduler(model=model, processor=SimpleNamespace(tokenizer=tokenizer))
    request_id = scheduler.add_request("hi")
    scheduler.running[request_id] = scheduler.waiting.popleft()
    scheduler.uid_to_request_id[0] = request_id
    stopped = MLLMBatchResponse(
        uid=0, request_id=request_id, token=106, logprobs=mx.zeros(1), finish_reason="stop"
    )
    ((output,), _) = scheduler._process_batch_responses([stopped])
    text = output.output_text or output.new_text
    return Finding(text != "", f"an answer of nothing but <turn|> has the text {text!r}")


def apply(surgery: Surgery) -> None:
    surgery.wrap(_PROCESS, leaving_out_the_last)


def leaving_out_the_last(original):
    def _process_batch_responses(self, responses):
        outputs, finished_ids = original(self, responses)
        if is_gemma4(getattr(self, "model", None)):
            for output in outputs:
                if output.finish_reason == "stop" and output.output_token_ids:
                    _leave_out_the_last(output, self)
        return outputs, finished_ids

    return _process_batch_responses


def _leave_out_the_last(output, scheduler) -> None:
    *said, _ = output.output_token_ids
    output.new_text = ""
    if not said:
        output.output_text = ""
    elif not hasattr(scheduler, "_detokenizer_pool"):  # 0.2.7 decodes all tokens of every answer
        tokenizer = getattr(scheduler.processor, "tokenizer", scheduler.processor)
        output.output_text = tokenizer.decode(said)


PATCH = Patch(id="vllm_mlx.stop_text", targets=(_PROCESS,), apply=apply, probe=probe)
