"""The finder on packages of our own, in this process."""

from __future__ import annotations

import copy
import importlib
import importlib.abc
import importlib.machinery
import importlib.resources
import importlib.util
import inspect
import pickle
import pkgutil
import py_compile
import runpy
import shutil
import sys
import threading
import time
from types import SimpleNamespace

import pytest

import mlx_gemma4_patches
from mlx_gemma4_patches import Finder, engine

from .environment import write

ROOTS = ("pack",)
BODY = "import told; told.events.append(__name__); value = 1\n"


class Told:
    """What the finder told, and what module bodies did, in order."""

    def __init__(self):
        self.events = []

    def before(self, spec):
        if spec.name in ROOTS:
            self.events.append(f"before {spec.name}")

    def after(self, name, module):
        self.events.append(f"after {name}")


@pytest.fixture
def told(monkeypatch):
    told = Told()
    monkeypatch.setitem(sys.modules, "told", told)
    return told


@pytest.fixture
def pack(tmp_path, monkeypatch):
    """A package with two modules; returns its folder."""
    folder = tmp_path / "pack"
    for name in ("__init__", "one", "two"):
        write(folder / f"{name}.py", BODY)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    forget()


@pytest.fixture
def finder(told, pack, monkeypatch):
    made = Finder(set(ROOTS), told.before, told.after)
    monkeypatch.setattr(sys, "meta_path", [made, *sys.meta_path])
    return made


def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] == "pack"]:
        del sys.modules[name]


class TestOrder:
    def test_the_root_is_told_of_before_its_body_and_each_module_after(self, finder, told):
        finder.names.add("pack.one")
        importlib.import_module("pack.one")
        importlib.import_module("pack.two")
        assert told.events == [
            *("before pack", "pack", "after pack"),
            *("pack.one", "after pack.one"),
            "pack.two",
        ]

    def test_what_is_watched_because_of_the_root_is_told_of(self, pack, told, monkeypatch):
        made = Finder(set(ROOTS), lambda spec: made.names.add("pack.one"), told.after)
        monkeypatch.setattr(sys, "meta_path", [made, *sys.meta_path])
        write(pack / "__init__.py", "import pack.one\n")
        importlib.import_module("pack")
        assert told.events == ["pack.one", "after pack.one", "after pack"]

    def test_looking_for_a_module_tells_nothing(self, finder, told):
        assert importlib.util.find_spec("pack").name == "pack"
        assert told.events == []

    def test_a_reloaded_module_is_told_of_again(self, finder, told):
        module = importlib.import_module("pack")
        assert importlib.reload(module) is module
        assert told.events == ["before pack", "pack", "after pack", "pack", "after pack"]

    def test_what_a_body_leaves_in_sys_modules_is_what_is_told_of(self, pack, told, monkeypatch):
        seen = []
        made = Finder(set(ROOTS), told.before, lambda name, module: seen.append(module))
        monkeypatch.setattr(sys, "meta_path", [made, *sys.meta_path])
        write(pack / "__init__.py", "import sys; sys.modules[__name__] = 'something else'\n")
        assert importlib.import_module("pack") == "something else"
        assert seen == ["something else"]


class TestErrors:
    def test_of_a_body_pass_unchanged_and_a_retry_is_told_of(self, finder, told, pack):
        write(pack / "one.py", "import told; raise told.broken\n")
        told.broken = LookupError("broken")
        finder.names.add("pack.one")
        with pytest.raises(LookupError) as caught:
            importlib.import_module("pack.one")
        assert caught.value is told.broken
        write(pack / "one.py", BODY)
        importlib.invalidate_caches()
        importlib.import_module("pack.one")
        assert told.events[-2:] == ["pack.one", "after pack.one"]


class TestLoader:
    """To everybody else the module's loader is the one it would have without us."""

    @pytest.fixture
    def loader(self, finder):
        finder.names.add("pack.one")
        return importlib.util.find_spec("pack.one").loader

    def test_is_the_true_one_while_the_body_runs_and_later(self, finder, pack):
        write(pack / "__init__.py", "kinds = type(__spec__.loader), type(__loader__)\n")
        module = importlib.import_module("pack")
        true = importlib.machinery.SourceFileLoader
        assert module.kinds == (true, true)
        assert (type(module.__spec__.loader), type(module.__loader__)) == (true, true)

    def test_has_the_type_and_attributes_of_the_true_one(self, loader, pack):
        assert isinstance(loader, importlib.machinery.SourceFileLoader)
        assert isinstance(loader, importlib.abc.InspectLoader)
        assert loader.path == str(pack / "one.py")
        assert loader.get_source("pack.one") == BODY
        assert not hasattr(loader, "no_such_attribute")

    @pytest.mark.parametrize("duplicate", [copy.copy, lambda x: pickle.loads(pickle.dumps(x))])
    def test_and_its_spec_can_be_copied_and_pickled(self, finder, duplicate):
        spec = duplicate(importlib.util.find_spec("pack"))
        assert spec.origin == importlib.util.find_spec("pack").origin
        assert type(duplicate(importlib.util.find_spec("pack").loader)) is (
            importlib.machinery.SourceFileLoader
        )

    def test_serves_runpy(self, finder, told):
        finder.names.add("pack.one")
        assert runpy.run_module("pack.one", run_name="__main__")["value"] == 1
        assert told.events == ["before pack", "pack", "after pack", "__main__"]

    def test_a_program_runs_in_the_module_that_can_be_imported(self, finder, told, pack):
        write(
            pack / "one.py",
            f"{BODY}def add(): return value\nif __name__ == '__main__': told.sum = add()\n",
        )
        finder.names.add("pack.one")
        finder.after = lambda name, module: setattr(module, "value", 2)
        runpy.run_module("pack.one", run_name="__main__")
        assert told.sum == 2
        told.sum = 0
        runpy.run_module("pack.one", run_name="__main__")  # imported by now, as mlx_lm.generate is
        assert told.sum == 2
        runpy.run_module("pack.one", run_name="__mp_main__")  # as a spawned process does
        assert told.events[-1] == "__mp_main__"

    def test_a_program_without_source_runs_as_it_is(self, finder, told, pack):
        file = write(
            pack / "one.py", f"{BODY}if __name__ == '__main__': told.events.append('main')\n"
        )
        py_compile.compile(str(file), cfile=str(file.with_suffix(".pyc")))
        file.unlink()
        finder.names.add("pack.one")
        runpy.run_module("pack.one", run_name="__main__")
        assert told.events[-2:] == ["__main__", "main"]

    def test_serves_pkgutil_inspect_and_resources(self, finder, pack):
        (pack / "data.txt").write_text("data")
        finder.names.add("pack.one")
        assert pkgutil.get_data("pack", "data.txt") == b"data"
        assert importlib.resources.files("pack").joinpath("data.txt").read_text() == "data"
        module = importlib.import_module("pack.one")
        assert inspect.getsource(module) == BODY
        names = [info.name for info in pkgutil.walk_packages([str(pack)], "pack.")]
        assert names == ["pack.one", "pack.two"]

    def test_can_load_a_copy_by_hand(self, finder, told):
        spec = importlib.util.find_spec("pack")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.value == 1
        assert told.events == ["before pack", "pack", "after pack"]

    def test_can_be_made_lazy(self, finder, told):
        spec = importlib.util.find_spec("pack")
        spec.loader = importlib.util.LazyLoader(spec.loader)
        module = importlib.util.module_from_spec(spec)
        sys.modules["pack"] = module
        spec.loader.exec_module(module)
        assert told.events == ["before pack"]
        assert module.value == 1
        assert told.events == ["before pack", "pack", "after pack"]


class TestOtherKinds:
    def test_a_zip_file(self, finder, told, pack, monkeypatch):
        archive = shutil.make_archive(str(pack.parent / "archive"), "zip", pack.parent, "pack")
        shutil.rmtree(pack)
        monkeypatch.syspath_prepend(archive)
        assert importlib.import_module("pack").value == 1
        assert told.events == ["before pack", "pack", "after pack"]

    def test_compiled_modules_without_source(self, finder, told, pack):
        py_compile.compile(str(pack / "__init__.py"), cfile=str(pack / "__init__.pyc"))
        (pack / "__init__.py").unlink()
        assert importlib.import_module("pack").value == 1
        assert told.events == ["before pack", "pack", "after pack"]

    def test_a_namespace_package_is_no_host(self, finder, told, pack):
        (pack / "__init__.py").unlink()
        assert importlib.import_module("pack").__path__
        assert told.events == []

    def test_a_loader_of_the_old_protocol_is_left_alone(self, finder, monkeypatch):
        loader = SimpleNamespace(load_module=None)
        spec = importlib.machinery.ModuleSpec("pack", loader)
        behind = SimpleNamespace(find_spec=lambda *arguments: spec)
        monkeypatch.setattr(sys, "meta_path", [finder, behind])
        assert finder.find_spec("pack").loader is loader

    def test_a_module_that_is_not_there(self, finder):
        finder.names.add("pack.absent")
        with pytest.raises(ModuleNotFoundError) as caught:
            importlib.import_module("pack.absent")
        assert caught.value.name == "pack.absent"


class AsksEverybody:
    """A finder as other instrumentation libraries have them."""

    def __init__(self):
        self.asking = False

    def find_spec(self, name, path=None, target=None):
        if name != "pack" or self.asking:
            return None
        self.asking = True
        try:
            return importlib.util.find_spec(name)
        finally:
            self.asking = False


class TestCompany:
    @pytest.mark.parametrize("in_front", [False, True])
    def test_a_finder_that_asks_the_whole_path_again(self, finder, told, in_front):
        sys.meta_path.insert(0 if in_front else 1, AsksEverybody())
        importlib.import_module("pack")
        assert told.events == ["before pack", "pack", "after pack"]

    def test_a_finder_in_front_is_not_asked_twice(self, finder):
        asked = []
        sys.meta_path.insert(0, SimpleNamespace(find_spec=lambda name, *more: asked.append(name)))
        importlib.import_module("pack")
        assert asked.count("pack") == 1

    def test_a_submodule_imported_in_a_thread_while_its_package_runs(self, finder, told, pack):
        body = """
            import importlib, threading
            work = lambda: importlib.import_module("pack.one")
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            thread.join(20)
            deadlock = thread.is_alive()
        """
        write(pack / "__init__.py", body)
        finder.names.add("pack.one")
        assert not importlib.import_module("pack").deadlock
        assert told.events == ["before pack", "pack.one", "after pack.one", "after pack"]

    def test_a_submodule_imported_in_a_thread_while_the_root_is_told_of(
        self, pack, told, monkeypatch
    ):
        def before(spec):
            if thread.ident is None:
                thread.start()
            time.sleep(0.2)  # long enough for the thread to import what it can get hold of
            made.names.add("pack.one")

        thread = threading.Thread(target=importlib.import_module, args=["pack.one"])
        made = Finder(set(ROOTS), before, told.after)
        monkeypatch.setattr(sys, "meta_path", [made, *sys.meta_path])
        importlib.import_module("pack")
        thread.join()
        assert told.events == ["pack", "after pack", "pack.one", "after pack.one"]

    def test_a_module_imported_in_many_threads_at_once_is_told_of_once(self, finder, told):
        barrier = threading.Barrier(8)

        def work():
            barrier.wait()
            importlib.import_module("pack")

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert told.events == ["before pack", "pack", "after pack"]


def test_a_host_is_found_without_an_import(pack, monkeypatch):
    def import_(*arguments, **named):
        raise AssertionError("an import under the global import lock")

    found = sys.meta_path
    made = Finder({"pack"}, None, None)
    monkeypatch.setattr(sys, "meta_path", [made, *found])
    spec = importlib.machinery.PathFinder.find_spec("pack")
    behind = SimpleNamespace(find_spec=lambda *arguments: spec)
    monkeypatch.setattr(sys, "meta_path", [made, behind])
    monkeypatch.setattr("builtins.__import__", import_)
    found = made.find_spec("pack")
    monkeypatch.undo()
    assert type(found.loader) is mlx_gemma4_patches.Loader


def test_two_threads_that_ask_for_their_first_host_at_once_start_one_engine(monkeypatch):
    class Slow(engine.Engine):
        def __init__(self):
            super().__init__(watched=set())
            made.append(self)
            time.sleep(0.2)  # long enough for the other thread to come along

        def serve_imported(self):
            """The hosts of this process have their engine already."""

    made = []
    monkeypatch.setattr(engine, "Engine", Slow)
    monkeypatch.setattr(engine, "ENGINE", None)
    threads = [threading.Thread(target=engine.of_this_process) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [engine.ENGINE]
