"""mlx-vlm with a drafter says about pictures what it says without one."""

from __future__ import annotations

import pytest

from mlx_gemma4_patches.gemma4 import tiny
from tests.hosts.contract import skip_unless_needed
from tests.hosts.drafters import RIGHTNESS
from tests.hosts.pictures import Pictured

pytest.importorskip("mlx_vlm")

from mlx_gemma4_patches.hosts.mlx_vlm.drafting import drafter, knowing

_LIMIT, _DRAFTS = 24, 3
_LENGTHS = {"one": 27, "two": 63}  # of the prompt whose images are 7..18 and 31..54


@pytest.mark.parametrize("rightness", [None, *RIGHTNESS])
@pytest.mark.parametrize("pictures", _LENGTHS)
@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_the_text_is_that_without_a_drafter(
    shape: str, pictures: str, rightness: str | None
) -> None:
    skip_unless_needed("mlx_vlm.mtp_kv_bits")  # where there are drafters
    seeing = Pictured(shape)
    ids = seeing.ids("images")[:, : _LENGTHS[pictures]]
    seen = int((ids == seeing.model.config.image_token_id).sum())
    soft_tokens = seeing.expected["features_images"][:seen]
    seeing.model.vision_tower = lambda *_: soft_tokens
    plain = seeing.greedy(ids, _LIMIT + 2 * _DRAFTS)

    draft = drafter(shape)
    if rightness:
        draft = knowing(draft, [[*ids[0].tolist(), *plain]], RIGHTNESS[rightness])
    draft.config.block_size = _DRAFTS + 1
    how = {"draft_model": draft, "draft_kind": "mtp", "draft_block_size": _DRAFTS + 1}
    assert seeing.greedy(ids, _LIMIT, **how) == plain[:_LIMIT]
    if rightness == "always right":
        assert sum(draft.accept_lens) >= _LIMIT // 2
