"""A part of mlx-lm's Gemma 4: the layers that one machine of a pipeline holds.

A part is a Gemma 4 of fewer layers, and the host's own code runs it: masks, caches, shared keys and
values, inputs per layer. Only its first layer takes what another machine sends, its last layer
sends what comes out, and its last norm has what comes out of the last layer of all. As in the
host's own pipelines two passes are not to be evaluated at once: mlx does not tell apart what they
receive.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map

from ...gemma4 import stages
from ...gemma4.shares import Share
from .sharding import keep_columns, keep_rows


def pipeline(text: Any, group: mx.distributed.Group, split: Sequence[int] | None = None) -> None:
    """Leave a ``gemma4_text.Gemma4TextModel`` with the layers of this machine, in place.

    As in the host's own pipelines the last machine of ``group`` has the first layers, and
    ``start_idx`` and ``end_idx`` say which ones this machine has.

    Args:
        split: how many layers each machine holds, that of the last layers first.

    Raises ValueError: see ``stages.cut``.
    """
    config, rank, size = text.config, group.rank(), group.size()
    kinds = [layer.layer_type for layer in text.layers]
    first_shared = len(kinds) - config.num_kv_shared_layers
    sizes = None if split is None else split[::-1]
    held = stages.cut(kinds, config.num_kv_shared_layers, size, sizes)[-1 - rank]
    text.start_idx, text.end_idx = begin, end = held.start, held.stop
    config.num_hidden_layers = text.num_hidden_layers = end - begin
    config.num_kv_shared_layers = max(0, end - first_shared)
    config.layer_types = kinds[begin:end]
    text.previous_kvs = [at - begin for at in text.previous_kvs[begin:end]]
    if text.hidden_size_per_layer_input:
        columns = Share(begin, end).times(text.hidden_size_per_layer_input)
        table = text.embed_tokens_per_layer
        for part in getattr(table, "parts", [table]):  # in pieces, on devices that take no other
            keep_columns(part, columns)
        keep_rows([text.per_layer_model_projection], columns)
    # the numbers of layers are names of weights, by which the host finds the files to load
    text["layers"] = [None] * begin + text["layers"][begin:end]
    _derive(text, layers=property(lambda self: self["layers"][self.start_idx :]))
    dtype = text.embed_tokens(mx.array([0])).dtype  # computes nothing
    if rank < size - 1:
        _derive(text.layers[0], __call__=_receiving(type(text.layers[0]), group, dtype))
    if rank > 0:
        _derive(text.layers[-1], __call__=_sending(type(text.layers[-1]), group, dtype))
    if size > 1:
        _derive(text.norm, __call__=_gathering(type(text.norm), group, dtype))


def _derive(module: Any, **body: Any) -> None:
    """Give an instance a class of its own, so that its weights keep their names."""
    kind = type(module)
    module.__class__ = type(kind.__name__, (kind,), {"__module__": kind.__module__, **body})


def _receiving(kind: type, group: mx.distributed.Group, dtype: mx.Dtype) -> Callable:
    """A layer's call with what comes from the machine before, in place of the embeddings."""

    @functools.wraps(kind.__call__)
    def __call__(self, x, *args, **kwargs):
        received = mx.distributed.recv(x.shape, dtype, group.rank() + 1, group=group)
        return kind.__call__(self, received.astype(x.dtype), *args, **kwargs)

    return __call__


def _sending(kind: type, group: mx.distributed.Group, dtype: mx.Dtype) -> Callable:
    """A layer's call that also sends what comes out to the machine behind."""

    @functools.wraps(kind.__call__)
    def __call__(self, x, mask=None, cache=None, *args, **kwargs):
        h, *rest = kind.__call__(self, x, mask, cache, *args, **kwargs)
        h = mx.distributed.send(h.astype(dtype), group.rank() - 1, group=group)
        if cache is not None:  # a prefill evaluates nothing but the caches
            cache.keys = tree_map(lambda keys: mx.depends(keys, h), cache.keys)
        return h, *rest

    return __call__


def _gathering(kind: type, group: mx.distributed.Group, dtype: mx.Dtype) -> Callable:
    """The last norm's call with what comes out of the last layer of all, on every machine."""

    @functools.wraps(kind.__call__)
    def __call__(self, x):
        return kind.__call__(
            self, mx.distributed.all_gather(x.astype(dtype), group=group)[: len(x)]
        )

    return __call__
