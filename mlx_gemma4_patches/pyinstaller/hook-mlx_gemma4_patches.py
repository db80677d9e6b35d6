"""Collects what is found by name at run time: patches, versions, the matrix and hosts' sources."""

from importlib.metadata import entry_points

from PyInstaller.utils.hooks import check_requirement, copy_metadata

from mlx_gemma4_patches import HOSTS, matrix, registry
from mlx_gemma4_patches.patch import GROUP

_patches = entry_points(group=GROUP)

hiddenimports = ["mlx_gemma4_patches.engine", *(point.module for point in _patches)]
# A program freezes the hosts that it imports itself; the patches name all of them.
excludedimports = [*HOSTS, "mlx", "transformers"]
# fingerprints are taken of the source
module_collection_mode = {host: "pyz+py" for host in HOSTS}
datas = [(str(matrix.path()), "mlx_gemma4_patches")]
for _name in {point.dist.name for point in _patches} | set(registry.DISTRIBUTIONS):
    if check_requirement(_name):
        datas += copy_metadata(_name)
