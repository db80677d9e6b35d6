"""How far a host's tensors may be from the reference's.

An error is the root mean square of the difference over that of the reference's tensor. The host may
be off by twice what transformers is off in the same dtype: as much as other kernels and another
order of sums explain, measured 1.0 to 1.4. Beside it stands the count of violations by which uzu
judges its own traces (trymirai/uzu#388): values that are off absolutely and relatively.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .cases import sampled

FACTOR = 2.0


class _Rule(NamedTuple):
    absolute: float
    relative: float
    share: float  # of all values, that may be off


_UZU = {"float32": _Rule(0.01, 0.03, 0.01), "bfloat16": _Rule(0.04, 0.06, 0.03)}


def judge(
    size: list[float],
    reference: np.ndarray,
    positions: np.ndarray,
    values: np.ndarray,
    dtype: str,
) -> dict[str, Any]:
    """Compare what a host computed of a tensor with what is stored of it.

    Args:
        size: positions, width, and transformers' error in float32 and in bfloat16, of all
            positions and of the last.
        reference: the values that ``cases.sampled`` names.
        positions, values: (n,) and (n, width), what the host computed and where.

    Returns:
        ``error``, ``limit``, ``violations`` and how many are ``allowed``, of how many ``values``,
        and ``position``, the first that has values beyond the limit; None if none has.
    """
    count, width = int(size[0]), int(size[1])
    of_all, of_last = size[2:4] if dtype == "float32" else size[4:6]
    limit = FACTOR * (max(of_all, of_last) if 2 * len(positions) < count else of_all)
    indices = sampled(count, width)
    whole = np.zeros((count, width), np.float32)
    is_seen = np.zeros(count, bool)
    if values.shape[1:] == (width,) and (not len(positions) or positions.max() < count):
        whole[positions], is_seen[positions] = values, True
    kept = is_seen[indices // width]
    at, want, got = indices[kept] // width, reference[kept], whole.ravel()[indices[kept]]
    off = np.abs(np.nan_to_num(got.astype(np.float64) - want, nan=np.inf))
    scale = math.sqrt(float(np.square(want.astype(np.float64)).mean())) if len(want) else 0.0
    with np.errstate(over="ignore"):
        error = math.sqrt(float(np.square(off).mean())) / scale if scale else math.inf
    rule = _UZU[dtype]
    is_off = (off > rule.absolute) & (off > rule.relative * np.abs(want))
    beyond = at[off > 3 * limit * scale] if error > limit else at[:0]
    return {
        "error": error,
        "limit": limit,
        "violations": int(is_off.sum()),
        "allowed": math.ceil(rule.share * len(want)),
        "values": len(want),
        "position": int(beyond.min()) if len(beyond) else None,
    }
