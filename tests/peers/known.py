"""Tests of the hosts that pass without our patches and fail with them, and why that is right."""

from __future__ import annotations

KNOWN: dict[str, str] = {}
