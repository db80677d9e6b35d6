"""mlx_lm.moe_gradient: the mixture of experts trains, and its forward pass is the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from mlx_gemma4_patches.hosts.mlx_lm.tiny import text_model
from tests.hosts.contract import PatchContract, patched
from tests.hosts.parity import reference

pytest.importorskip("mlx_lm.models.gemma4")  # mlx-lm 0.31.1 has none
from mlx_lm.tuner.trainer import TrainingArgs, TrainingCallback, train
from mlx_lm.tuner.utils import linear_to_lora_layers

ID = "mlx_lm.moe_gradient"

LORA = {"rank": 4, "scale": 2.0, "dropout": 0.0}
KEYS = {
    "all": None,
    "attention": ["self_attn.q_proj"],
    "experts": ["experts.switch_glu.gate_proj", "experts.switch_glu.down_proj"],
}


class TestMoeGradient(PatchContract):
    id = ID

    def untouched(self) -> Any:
        expected = reference("moe")
        models = [text_model(shape) for shape in tiny.SHAPES]
        quantized = text_model("moe")
        nn.quantize(quantized, 64, 4)
        models += [quantized]
        return [model(expected[f"ids_{n}"][None]) for model in models for n in (8, 40)]


@pytest.fixture(autouse=True)
def _patched():
    with patched(ID):
        yield


def loss_of(model: nn.Module, ids: mx.array) -> mx.array:
    return nn.losses.cross_entropy(model(ids[:, :-1]), ids[:, 1:]).mean()


def with_lora(keys: list[str] | None, bits: int | None = None) -> nn.Module:
    mx.random.seed(0)
    model = text_model("moe")
    if bits:
        nn.quantize(model, 64, bits)
    model.freeze()
    linear_to_lora_layers(model, len(model.layers), {**LORA, **({"keys": keys} if keys else {})})
    return model


# more than 64 choices of an expert are sorted, fewer are not
@pytest.mark.parametrize(("bits", "length"), [(None, 12), (4, 50)], ids=["plain", "4-bit, sorted"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluating"])
@pytest.mark.parametrize("keys", KEYS)
def test_steps_with_lora_lower_the_loss(
    keys: str, bits: int | None, training: bool, length: int
) -> None:
    model = with_lora(KEYS[keys], bits)
    model.train(training)
    ids = mx.array([tiny.prompt(length)])
    step, optimizer = nn.value_and_grad(model, loss_of), optim.Adam(2e-3)
    losses = []
    for _ in range(4):
        loss, gradient = step(model, ids)
        optimizer.update(model, gradient)
        mx.eval(model.parameters(), optimizer.state)
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05, losses


def test_the_gradient_of_the_router_is_the_slope_of_the_loss() -> None:
    model = text_model("moe").train()
    ids = mx.array([tiny.prompt(12)])
    router = model.layers[2].router
    model.freeze()
    router.unfreeze(keys=["per_expert_scale", "scale"])
    _, gradient = nn.value_and_grad(model, loss_of)(model, ids)
    gradient = gradient["language_model"]["model"]["layers"][2]["router"]
    for name in ("per_expert_scale", "scale"):
        slope = gradient[name]
        old, step = router[name], 1e-2 * slope / slope.square().sum().sqrt()
        router[name] = old + step
        above = loss_of(model, ids).item()
        router[name] = old - step
        below = loss_of(model, ids).item()
        router[name] = old
        expected = (2 * step * slope).sum().item()
        assert above - below == pytest.approx(expected, rel=0.05)


@pytest.fixture
def _no_compilation() -> Iterator[None]:
    mx.disable_compile()  # which takes half a minute on a CPU
    yield
    mx.enable_compile()


@pytest.mark.usefixtures("_no_compilation")
def test_the_trainer_of_the_host_lowers_the_loss(tmp_path: Path) -> None:
    losses = []

    class Report(TrainingCallback):
        def on_train_loss_report(self, info: dict[str, Any]) -> None:
            losses.append(info["train_loss"])

    model = with_lora(None)
    data = [(tiny.prompt(24, seed), 0) for seed in range(2)]
    train(
        model=model,
        args=TrainingArgs(
            batch_size=2,
            iters=6,
            steps_per_report=1,
            steps_per_eval=100,
            val_batches=0,
            max_seq_length=32,
            adapter_file=str(tmp_path / "adapters.safetensors"),
        ),
        optimizer=optim.Adam(2e-3),
        train_dataset=data,
        val_dataset=data,
        training_callback=Report(),
    )
    assert len(losses) == 6 and losses[-1] < losses[0] - 0.05, losses
