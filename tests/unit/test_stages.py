"""Where the layers of Gemma 4 are cut for a pipeline."""

from __future__ import annotations

import pytest

from mlx_gemma4_patches.gemma4 import sizes, stages


def layout(name: str) -> tuple[list[str], int]:
    config = sizes.text_config(name)
    return config["layer_types"], config["num_kv_shared_layers"]


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("e2b", [35]),
        ("e2b", [13, 22]),
        ("e2b", [6, 7, 22]),
        ("e2b", [4, 4, 5, 22]),
        ("e4b", [21, 21]),
        ("e4b", [11, 11, 20]),
        ("e4b", [7, 7, 8, 20]),
        ("12b", [24, 24]),
        ("26b-a4b", [15, 15]),
        ("26b-a4b", [7, 7, 8, 8]),
        ("31b", [30, 30]),
        ("31b", [15, 15, 15, 15]),
        ("31b", [7, 7, 8, 7, 8, 7, 8, 8]),
    ],
)
def test_layers_of_the_published_sizes(name: str, held: list[int]) -> None:
    made = stages.cut(*layout(name), len(held))
    assert [len(layers) for layers in made] == held
    assert [i for layers in made for i in layers] == list(range(sum(held)))


@pytest.mark.parametrize("name", sizes.NAMES)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_a_layer_and_those_that_read_its_keys_are_on_one_machine(name: str, count: int) -> None:
    kinds, shared = layout(name)
    own = len(kinds) - shared
    for layers in stages.cut(kinds, shared, count):
        for reader in layers:
            if reader >= own:
                assert max(i for i in range(own) if kinds[i] == kinds[reader]) in layers
        assert any(kinds[i] == "sliding_attention" for i in layers)


@pytest.mark.parametrize(
    ("name", "count", "held", "why"),
    [
        ("e2b", 2, [17, 18], "must hold layer 13 too"),
        ("e4b", 2, [23, 19], "must hold layer 22 too"),
        ("e2b", 15, None, "cannot be"),  # 13 layers for 14 machines
        ("e2b", 14, None, "no sliding window"),
        ("31b", 2, [30, 20, 10], "on 2 machines"),
        ("31b", 2, [60, 0], "on 2 machines"),
        ("31b", 2, [30, 29], "on 2 machines"),
        ("31b", 3, [5, 1, 54], "layers 5 to 5 have no sliding window"),
    ],
)
def test_what_the_layout_does_not_allow_is_refused_in_a_line(
    name: str, count: int, held: list[int] | None, why: str
) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        stages.cut(*layout(name), count, held)
    assert "\n" not in str(refused.value)
