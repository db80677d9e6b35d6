"""mlx_vlm.moe_gradient: the mixture of experts trains, and its forward pass is the same."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts.contract import PatchContract, patched
from tests.hosts.parity import reference

pytest.importorskip("mlx_vlm.models.gemma4", reason="no Gemma 4 in this mlx-vlm")
from mlx_gemma4_patches.hosts.mlx_vlm.tiny import model

ID = "mlx_vlm.moe_gradient"


class TestMoeGradient(PatchContract):
    id = ID

    def untouched(self) -> Any:
        ids = reference("moe")["ids_40"][None]
        return [model(shape).language_model(ids).logits for shape in tiny.SHAPES]


def loss_of(language_model: nn.Module, ids: mx.array) -> mx.array:
    return nn.losses.cross_entropy(language_model(ids[:, :-1]).logits, ids[:, 1:]).mean()


@pytest.fixture
def trained() -> nn.Module:
    """A language model whose routers and experts learn; its caller is in the patched host."""
    made = model("moe").language_model
    made.freeze()
    for layer in made.model.layers:
        layer.router.unfreeze()
        layer.experts.unfreeze()
    return made


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluating"])
@pytest.mark.parametrize("length", [12, 50], ids=["plain", "sorted"])
def test_steps_lower_the_loss(trained: nn.Module, training: bool, length: int) -> None:
    trained.train(training)
    ids = mx.array([tiny.prompt(length)])
    with patched(ID):
        step, optimizer = nn.value_and_grad(trained, loss_of), optim.Adam(2e-3)
        losses = []
        for _ in range(4):
            loss, gradient = step(trained, ids)
            optimizer.update(trained, gradient)
            mx.eval(trained.parameters(), optimizer.state)
            losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05, losses


def test_the_gradient_of_the_router_is_the_slope_of_the_loss(trained: nn.Module) -> None:
    trained.train()
    ids = mx.array([tiny.prompt(12)])
    with patched(ID):
        _, gradient = nn.value_and_grad(trained, loss_of)(trained, ids)
        slope = gradient["model"]["layers"][2]["router"]["per_expert_scale"]
        router = trained.model.layers[2].router
        old, step = router["per_expert_scale"], 1e-2 * slope / slope.square().sum().sqrt()
        losses = []
        for sign in (1, -1):
            router["per_expert_scale"] = old + sign * step
            losses.append(loss_of(trained, ids).item())
    assert losses[0] - losses[1] == pytest.approx((2 * step * slope).sum().item(), rel=0.05)
