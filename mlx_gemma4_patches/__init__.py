"""Gemma 4 on mlx-lm, mlx-vlm and vllm-mlx as in the reference implementation.

``activate`` runs at every interpreter start, so this file imports nothing but os and sys.
"""

import os
import sys

__version__ = "0.1.0"
__all__ = ["HOSTS", "__version__", "activate", "status"]

HOSTS = frozenset(("mlx_lm", "mlx_vlm", "vllm_mlx"))

_finder = None  # stands on sys.meta_path instead of the sentinel once a host was asked for
_failure = None  # why there is no finder though a host was asked for


class Sentinel:
    """Waits on ``sys.meta_path`` for the first import of a host, then makes way for the finder."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in HOSTS or _is_off():
            return None
        _arm()
        # None here would leave this very import to the finders behind us, unseen
        return _finder.find_spec(name, path, target) if _finder else None


def activate() -> None:
    """Have the hosts patched when they are imported, or now if they have been already.

    An installation does this at interpreter start. Programs that run no .pth files (``python -S``,
    zipapps, frozen applications) call it before or after they import a host, any number of times.

    Raises:
        ImportError: with MLX_GEMMA4_PATCHES_STRICT=1, if a host is imported already and our own
            start fails.
    """
    if _is_off():
        return
    standing = _finder or Sentinel
    if standing not in sys.meta_path:
        sys.meta_path.insert(0, standing)
    if not HOSTS.isdisjoint(sys.modules):
        _arm()


def status() -> dict:
    """Whether the patches are active in this process and what became of each, ready for JSON.

    Returns:
        ``active`` (bool) and ``activation`` (words); once active also ``hosts``, ``patches`` and
        ``problems``.
    """
    if _finder:
        from . import engine

        return {"active": True, "activation": _failure or "active", **engine.status()}
    if _is_off():
        words = "off: MLX_GEMMA4_PATCHES=0"
    elif _failure:
        words = _failure
    elif Sentinel in sys.meta_path:
        words = "waiting for the import of a host"
    else:
        words = "inactive: mlx_gemma4_patches.activate() was not called"
    return {"active": False, "activation": words}


def _is_off():
    return os.environ.get("MLX_GEMMA4_PATCHES", "").strip() == "0"


def _arm():
    """Put the finder where the sentinel stands, once, and serve what was imported before."""
    global _finder, _failure
    if _finder or _failure:
        return
    try:
        from . import engine, finder

        with finder.ARMING:
            if _finder:
                return
            _finder = finder.take_place(Sentinel, engine.start())
        engine.catch_up()
    except Exception as error:
        failure = f"failed: {type(error).__name__}: {' '.join(str(error).split())}"
        if os.environ.get("MLX_GEMMA4_PATCHES_STRICT", "").strip() == "1":
            raise ImportError(f"mlx-gemma4-patches {failure}") from error
        _failure = failure
        if sys.stderr:
            sys.stderr.write(f"mlx-gemma4-patches {failure}; hosts run without patches\n")
