"""Parts of mlx-lm's Gemma 4 that hold a share of their weights and add up with other machines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ...gemma4 import shares
from ...gemma4.shares import Share


class Summed(nn.Module):
    """A layer that holds some of its inner columns; the sum over all machines is its output."""

    def __init__(self, inner: nn.Module, group: mx.distributed.Group):
        super().__init__()
        self.inner = inner
        self._group = group

    def __call__(self, *args: Any) -> mx.array:
        return mx.distributed.all_sum(self.inner(*args), group=self._group)


class DividedTable(nn.Module):
    """An embedding of which each machine holds some rows."""

    def __init__(self, inner: nn.Module, share: Share, group: mx.distributed.Group):
        super().__init__()
        self.inner = inner
        self._share = share
        self._group = group

    def __call__(self, ids: mx.array) -> mx.array:
        begin, end = self._share
        is_here = (ids >= begin) & (ids < end)
        found = self.inner(mx.where(is_here, ids - begin, 0))
        return mx.distributed.all_sum(mx.where(is_here[..., None], found, 0), group=self._group)


def shard(text: Any, group: mx.distributed.Group) -> None:
    """Leave a ``gemma4_text.Gemma4TextModel`` with the share of this machine, in place."""
    rank, size = group.rank(), group.size()
    if size == 1:
        return
    for kind in {layer.layer_type for layer in text.layers}:
        _shard_attention([x.self_attn for x in text.layers if x.layer_type == kind], group)
    for layer in text.layers:
        if _shard_inner(layer.mlp, group):
            layer.mlp.down_proj = Summed(layer.mlp.down_proj, group)
        if layer.enable_moe and _shard_inner(layer.experts.switch_glu, group):
            layer.experts = Summed(layer.experts, group)
    table = text.embed_tokens_per_layer
    if type(table) in (nn.Embedding, nn.QuantizedEmbedding):  # no other's rows are in one piece
        share = shares.of(table.weight.shape[0], rank, size)
        keep_rows([table], share)
        text.embed_tokens_per_layer = DividedTable(table, share, group)


def _shard_attention(layers: list[Any], group: mx.distributed.Group) -> None:
    """All layers of a type or none: KV-shared layers read the keys of others."""
    rank, size = group.rank(), group.size()
    heads = shares.of_heads(layers[0].n_heads, layers[0].n_kv_heads, rank, size)
    if heads is None:
        return
    queries, keys = heads
    columns = queries.times(layers[0].head_dim)
    if any(columns.begin % _unit(x.o_proj) or columns.end % _unit(x.o_proj) for x in layers):
        return
    for layer in layers:
        keep_rows([layer.q_proj], columns)
        names = [name for name in ("k_proj", "v_proj") if name in layer]
        keep_rows([layer[name] for name in names], keys.times(layer.head_dim))
        keep_columns(layer.o_proj, columns)
        layer.o_proj = Summed(layer.o_proj, group)
        layer.n_heads = queries.end - queries.begin
        layer.n_kv_heads = keys.end - keys.begin


def _shard_inner(mlp: Any, group: mx.distributed.Group) -> bool:
    """Whether an MLP, or experts, now hold their share of the inner columns."""
    inner = mlp.gate_proj.weight.shape[-2]
    share = shares.of(inner, group.rank(), group.size(), _unit(mlp.down_proj))
    if share is None:
        return False
    keep_rows([mlp.gate_proj, mlp.up_proj], share)
    keep_columns(mlp.down_proj, share)
    return True


def _unit(layer: Any) -> int:
    """So many columns of a weight cannot be parted."""
    return layer.group_size if "scales" in layer else 1


def keep_rows(layers: Iterable[Any], share: Share) -> None:
    for layer in layers:
        for name, values in layer.parameters().items():
            layer[name] = mx.contiguous(values[..., share.begin : share.end, :])


def keep_columns(layer: Any, share: Share) -> None:
    width = layer.weight.shape[-1]
    if "scales" in layer:
        width = layer.scales.shape[-1] * layer.group_size
    for name, values in layer.parameters().items():
        each = values.shape[-1]  # packed weights and scales have fewer columns than there are
        begin, end = share.begin * each // width, share.end * each // width
        layer[name] = mx.contiguous(values[..., begin:end])
