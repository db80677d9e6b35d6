"""Whether a wrapper takes every call that what it wraps takes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from mlx_gemma4_patches.targets import current, functions, under_our_wrappers, wrapped_by_us

_P = inspect.Parameter
_POSITIONAL = (_P.POSITIONAL_ONLY, _P.POSITIONAL_OR_KEYWORD)


def refused(target: str) -> list[str]:
    """The calls that our wrappers at ``target`` refuse and its own function takes, in words."""
    return [
        difference
        for value in functions(current(target))
        for wrapper, original in _pairs(value)
        for difference in _differences(
            inspect.signature(wrapper, follow_wrapped=False),
            inspect.signature(original, follow_wrapped=False),
            by_position_alone=isinstance(current(target), property),
        )
    ]


def _pairs(function: Any) -> Iterator[tuple[Any, Any]]:
    original = under_our_wrappers(function)
    while function is not original:
        yield function, original
        function = wrapped_by_us(function)


def _differences(
    wrapper: inspect.Signature, original: inspect.Signature, by_position_alone: bool
) -> Iterator[str]:
    for given, named in _calls(original):
        if by_position_alone and named:
            continue
        try:
            wrapper.bind(*given, **named)
        except TypeError as error:
            yield f"{original} takes {len(given)} values and {list(named)}, {wrapper}: {error}"
    for name, parameter in original.parameters.items():
        ours = wrapper.parameters.get(name)
        if ours is None or _P.empty in (ours.default, parameter.default):
            continue
        if ours.default != parameter.default:
            yield f"{name} is {parameter.default!r} by default, not {ours.default!r}"


def _calls(signature: inspect.Signature) -> Iterator[tuple[list[None], dict[str, None]]]:
    """Calls with all arguments and with those alone that are required, named from any one on."""
    parameters = list(signature.parameters.values())
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    others = [p for p in parameters if p.kind is _P.KEYWORD_ONLY]
    is_method = bool(positional) and positional[0].name in ("self", "cls")
    for count in range(is_method, len(positional) + 1):
        named = positional[count:] + others
        if any(p.kind is _P.POSITIONAL_ONLY for p in named):
            continue
        for chosen in (named, [p for p in named if p.default is _P.empty]):
            yield [None] * count, {p.name: None for p in chosen}
    kinds = {p.kind for p in parameters}
    more = [None] * len(positional)
    if _P.VAR_POSITIONAL in kinds:
        yield [*more, None], {p.name: None for p in others}
    if _P.VAR_KEYWORD in kinds:
        yield more, {p.name: None for p in others} | {"of_another_name": None}
