from mlx_gemma4_patches.settings import Settings


def test_nothing_set_means_on_and_nothing_else():
    assert Settings.read({}) == Settings()


def test_every_variable_is_read():
    settings = Settings.read(
        {
            "MLX_GEMMA4_PATCHES": "0",
            "MLX_GEMMA4_PATCHES_STRICT": "1",
            "MLX_GEMMA4_PATCHES_DISABLE": "a.b, c.d,,a.b",
            "MLX_GEMMA4_PATCHES_ENABLE": "e.f",
            "MLX_GEMMA4_PATCHES_LOG": "debug",
        }
    )
    assert not settings.on
    assert settings.strict
    assert settings.disable == {"a.b", "c.d"}
    assert settings.enable == {"e.f"}
    assert settings.level == "DEBUG"


def test_an_unknown_level_is_named_and_ignored():
    settings = Settings.read({"MLX_GEMMA4_PATCHES_LOG": "loud"})
    assert settings.level is None
    assert "loud" in settings.problems[0]
