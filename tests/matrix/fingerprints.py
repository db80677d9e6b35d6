"""Prints the fingerprints of every patch's targets on this installation, as JSON.

Run with the patches off: a wrapped target has another source.
"""

from __future__ import annotations

import importlib
import json

from mlx_gemma4_patches import registry
from mlx_gemma4_patches.fingerprint import fingerprint


def main() -> None:
    found = {}
    for entry_point in registry.registered():
        patch = registry.load(entry_point)
        try:
            importlib.import_module(patch.host)
        except ImportError:
            continue
        found[patch.id] = prints = {}
        for target in patch.targets:
            try:
                prints[target] = fingerprint(target)
            except (ImportError, AttributeError):
                continue  # this release has no such place
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
