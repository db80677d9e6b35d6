import dataclasses

import pytest

import mlx_gemma4_patches
from mlx_gemma4_patches.settings import Settings


def test_nothing_set_means_on_and_nothing_else():
    assert Settings.read({}) == Settings()


def test_every_variable_is_read():
    settings = Settings.read(
        {
            "MLX_GEMMA4_PATCHES": "0",
            "MLX_GEMMA4_PATCHES_STRICT": "1",
            "MLX_GEMMA4_PATCHES_THIRD_PARTY": "0",
            "MLX_GEMMA4_PATCHES_DISABLE": "a.b, c.d,,a.b",
            "MLX_GEMMA4_PATCHES_ENABLE": "e.f",
            "MLX_GEMMA4_PATCHES_LOG": "debug",
        }
    )
    assert not settings.on
    assert settings.strict
    assert not settings.third_party
    assert settings.disable == {"a.b", "c.d"}
    assert settings.enable == {"e.f"}
    assert settings.level == "DEBUG"


@pytest.mark.parametrize("word", ["0", "false", "no", "off", "OFF", " False "])
def test_the_usual_words_switch_off(word, monkeypatch):
    monkeypatch.setenv("MLX_GEMMA4_PATCHES", word)
    assert not Settings.read().on
    assert mlx_gemma4_patches.is_off()


@pytest.mark.parametrize("word", ["1", "true", "yes", "on", "TRUE"])
def test_the_usual_words_switch_on(word):
    assert Settings.read({"MLX_GEMMA4_PATCHES_STRICT": word}).strict
    assert Settings.read({"MLX_GEMMA4_PATCHES": word}) == Settings()


@pytest.mark.parametrize("name", ["", "_STRICT", "_THIRD_PARTY"])
def test_any_other_word_is_named_and_ignored(name):
    settings = Settings.read({f"MLX_GEMMA4_PATCHES{name}": "maybe"})
    (problem,) = settings.problems
    assert "maybe" in problem
    assert Settings() == dataclasses.replace(settings, problems=())


def test_an_unknown_level_is_named_and_ignored():
    settings = Settings.read({"MLX_GEMMA4_PATCHES_LOG": "loud"})
    assert settings.level is None
    assert "loud" in settings.problems[0]
