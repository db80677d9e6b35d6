"""Tests of the hosts that pass without our patches and fail with them, and why that is right."""

from __future__ import annotations

_BY_IDENTITY = (
    "it tells an array that was evaluated by its identity; mlx_lm.cache_offset hands out copies, "
    "and evaluates what they are copies of with them"
)

KNOWN = {
    "tests/test_prompt_cache.py::TestPromptCache::test_batch_rotating_kv_cache": (
        "it pins the mask that mlx_lm.rotating_steps repairs: the first of two tokens does not "
        "see the oldest of the five keys in its window of eight"
    ),
    "tests/test_tuner_trainer.py::TestTunerTrainer::test_gemma4_per_layer_inputs_backward": (
        "it looks up embeddings that are no rows of the table; mlx_lm.reverse_embedding refuses "
        "them, where the host takes the nearest rows"
    ),
    "tests/test_gemma4_streaming_edge.py::test_gemma4_streaming_edge::"
    "test_partial_marker_at_end_flushed": (
        "it pins that <|channel> at the end of a stream is shown as reasoning"
    ),
    "tests/test_memory_cache_mlx.py::TestTrimCacheOffset::"
    "test_plain_kv_cache_rotating_layers_unchanged_behavior": (
        "it pins the zeros in place of what a sliding window has dropped; vllm_mlx.prefix_cache "
        "does not rewind such a window"
    ),
    **{
        f"tests/test_batch_reshuffle_metadata.py::{test}": _BY_IDENTITY
        for test in (
            "TestReshuffleEvaluatesMetadata::test_churn_keeps_metadata_materialized_every_cycle",
            "TestReshuffleEvaluatesMetadata::test_extend_evaluates_metadata",
            "TestReshuffleEvaluatesMetadata::test_filter_evaluates_metadata",
            "TestReshuffleEvaluatesMetadata::test_hybrid_cachelist_children_evaluated",
            "TestReshuffleEvaluatesMetadata::test_rotating_kv_cache_layer_evaluated",
            "TestSyncReshuffleMetadata::test_collects_batch_kv_cache_metadata",
            "TestSyncReshuffleMetadata::test_none_cache_slots_are_skipped",
            "TestSyncReshuffleMetadata::test_recurses_into_cache_list_children",
        )
    },
}
