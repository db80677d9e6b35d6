"""Batched decode of unequal prompts equals the same prompts alone, past the window too."""

from __future__ import annotations

import io

import mlx.core as mx

from tests.hosts.batches import Batch, CacheContract
from tests.hosts.contract import patched, skip_unless_needed, stock
from tests.hosts.parity import TOLERANCE


class TestCacheOffset(CacheContract):
    id = "mlx_lm.cache_offset"

    def test_prompts_padded_to_one_batch_decode_as_alone(self, subject) -> None:
        with patched(self.id):
            batch = Batch.left_padded(subject)
            batch.decode()
        assert batch.worst < TOLERANCE

    def test_prompts_merged_to_one_batch_decode_as_alone(self, subject) -> None:
        with patched(self.id):
            batch = Batch.merged(subject)
            batch.decode()
        assert batch.worst < TOLERANCE

    def test_a_captured_offset_stays_whatever_is_done_to_the_cache(self) -> None:
        three, one = mx.zeros((2, 1, 3, 4)), mx.zeros((2, 1, 1, 4))
        changes = [
            ("prepare", (), {"left_padding": [1, 0]}),
            ("update_and_fetch", (three, three), {}),
            ("prepare", (), {"lengths": [3, 1], "right_padding": [0, 2]}),
            ("update_and_fetch", (three, three), {}),
            ("finalize", (), {}),
            ("update_and_fetch", (one, one), {}),
            ("trim", (1,), {}),
        ]
        for layer in self.both([2, 0]):
            for method, arguments, options in changes:
                captured = layer.offset
                before = captured.tolist()
                getattr(layer, method)(*arguments, **options)
                assert captured.tolist() == before
            assert layer.offset.tolist() == [3, 4]

    def test_caches_made_before_the_patch_and_after_it_go_on(self) -> None:
        skip_unless_needed(self.id)
        keys = mx.zeros((2, 1, 1, 4))
        with stock(self.id):
            made_before = self.both([1, 0])
        made_after = self.both([1, 0])
        for layer in made_before + made_after:
            layer.update_and_fetch(keys, keys)
        with stock(self.id):
            for layer in made_before + made_after:
                layer.update_and_fetch(keys, keys)
                assert layer.offset.tolist() == [1, 2]

    def test_who_evaluates_the_offset_evaluates_the_one_that_is_kept(self) -> None:
        """Else what a batch once was stays in memory: vllm-mlx evaluates it after each change."""
        keys = mx.zeros((2, 1, 1, 4))
        with patched(self.id):
            for layer in self.both([1, 0]):
                layer.update_and_fetch(keys, keys)
                mx.eval(layer.offset)
                graph = io.StringIO()
                mx.export_to_dot(graph, vars(layer)["offset"])
                assert "label" not in graph.getvalue()  # no operation is left to be done
