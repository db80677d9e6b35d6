"""The README says what the matrix and the command line say."""

from mlx_gemma4_patches import matrix, registry
from tests.matrix import table


def test_the_table_is_that_of_the_matrix():
    text = table.README.read_text(encoding="utf-8")
    assert table.START in text
    assert table.written(text) == text


def test_every_row_is_a_registered_patch_and_every_patch_has_a_row():
    registered = {
        entry_point.name
        for entry_point in registry.registered()
        if entry_point.value.startswith("mlx_gemma4_patches.patches.")
    }
    assert registered == set(matrix.load().rows)
