"""Virtual environments with small hosts of our own in place of the real ones.

Nothing is downloaded: what an environment needs is linked from the one that runs the tests.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

HOST_VERSION = "9.9"
HOST = """
    import importlib
    import os
    import threading

    if os.environ.get("FAKE_HOST") == "imports a submodule in a thread":
        def work():
            importlib.import_module("mlx_lm.fake")

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(20)
        print("deadlock" if thread.is_alive() else "no deadlock")
    if os.environ.get("FAKE_HOST") == "broken":
        raise ImportError("the host is broken")
"""
TEXT = """\
    def text(self):
        return "stock"
"""
FAKE = f"class Answer:\n{TEXT}"
SERVER = "from .fake import Answer\n\nprint(__name__, Answer().text())\n"

# a program that shows whether the patch of PATCHES is on
SHOW = "from mlx_lm.fake import Answer; print(Answer().text())"

PATCHES = f"""
    from mlx_gemma4_patches.patch import Finding, Patch

    TARGET = "mlx_lm.fake:Answer.text"

    def apply(surgery):
        def make(original):
            return lambda self: original(self).replace("stock", "patched")

        surgery.wrap(TARGET, make)

    PATCH = Patch(
        id="mlx_lm.demo",
        targets=(TARGET,),
        apply=apply,
        probe=lambda: Finding(False, "nothing"),
        row={{
            "title": "Answers are stock",
            "faulty": [{{"mlx-lm": "<10"}}],
            "code": [
                {{
                    "releases": ["{HOST_VERSION}"],
                    "targets": {{
                        TARGET: "{hashlib.sha256(textwrap.dedent(TEXT).encode()).hexdigest()[:16]}"
                    }},
                }}
            ],
        }},
    )
"""


class Environment:
    """A virtual environment that has the fake hosts and the dependencies of ``package``.

    Args:
        folder: where to make it.
        package: the metadata of our package. Its own patches are switched off, they are about the
            real hosts.
    """

    def __init__(self, folder: Path, package: importlib.metadata.Distribution):
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.disable = ",".join(
            entry_point.name
            for entry_point in package.entry_points
            if entry_point.group == "mlx_gemma4_patches.patches"
        )
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.site = Path(self.run("import sysconfig; print(sysconfig.get_path('purelib'))"))
        self.link(package.requires or [])
        for host in ("mlx_lm", "mlx_vlm", "vllm_mlx"):
            metadata = f"Name: {host.replace('_', '-')}\nVersion: {HOST_VERSION}\n"
            write(self.site / f"{host}-{HOST_VERSION}.dist-info" / "METADATA", metadata)
            write(self.site / host / "__init__.py", HOST)
            write(self.site / host / "fake.py", FAKE)
            write(self.site / host / "server.py", SERVER)

    def process(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the interpreter with ``variables`` set."""
        return subprocess.run(
            [self.python, *arguments],
            env={**clean_environ(), "MLX_GEMMA4_PATCHES_DISABLE": self.disable, **variables},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def run(self, code: str, *options: str, **variables: str) -> str:
        """What ``code`` prints; it must succeed and leave stderr empty."""
        done = self.process(*options, "-c", textwrap.dedent(code), **variables)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.strip()

    def install(self, *arguments: str | Path) -> None:
        pip("--python", self.python, "install", "--no-index", "--no-deps", *arguments)

    def uninstall(self, name: str) -> None:
        pip("--python", self.python, "uninstall", "--yes", name)

    def link(self, requirements: Iterable[str]) -> None:
        """Let the environment see these and what they require."""
        for distribution in _closure(requirements):
            tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
            for top in tops:
                if not (self.site / top).exists():
                    (self.site / top).symlink_to(Path(distribution.locate_file(top)).resolve())

    def files(self) -> list[str]:
        """Every file and folder of the environment."""
        return sorted(
            os.path.join(folder, name)
            for folder, folders, files in os.walk(self.folder)
            for name in folders + files
        )


def clean_environ() -> dict[str, str]:
    """This process's environment variables without those that change an interpreter or us."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "MLX_GEMMA4_PATCHES"))
    }
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1"}


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments]
    subprocess.run(command, env=clean_environ(), check=True)


def build_wheel(project: Path, folder: Path) -> Path:
    """The wheel that users would get of ``project``."""
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, project)
    (wheel,) = folder.glob("*.whl")
    return wheel


def build_patch_package(name: str, module: str, folder: Path) -> Path:
    """The wheel of a third party's package that registers ``module``'s PATCH as mlx_lm.``name``."""
    project = f"""
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"

        [project]
        name = "gemma4-{name}"
        version = "1.0"

        [project.entry-points."mlx_gemma4_patches.patches"]
        "mlx_lm.{name}" = "gemma4_{name}:PATCH"
    """
    write(folder / "pyproject.toml", project)
    write(folder / f"gemma4_{name}" / "__init__.py", module)
    return build_wheel(folder, folder / "dist")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def _closure(requirements: Iterable[str]) -> list[importlib.metadata.Distribution]:
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = list(requirements)
    while waiting:
        requirement = Requirement(waiting.pop())
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and requirement.name not in found:
            found[requirement.name] = importlib.metadata.distribution(requirement.name)
            waiting += found[requirement.name].requires or []
    return list(found.values())
