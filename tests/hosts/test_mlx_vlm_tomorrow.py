"""A release that nobody has measured yet."""

from tests.hosts.tomorrow import TestTomorrow as _Tomorrow


class TestTomorrow(_Tomorrow):
    host = "mlx_vlm"
