"""What an installation does, seen from programs that import a host."""

from __future__ import annotations

import json
import re
import textwrap

import pytest

from .environment import SHOW, Environment, write

STATUS = "import json, mlx_gemma4_patches; print(json.dumps(mlx_gemma4_patches.status()))"
FINDERS = """
import sys
names = [getattr(finder, "__name__", type(finder).__name__) for finder in sys.meta_path]
print(*(name for name in names if name == "Finder"))
"""


@pytest.fixture(params=["wheel", "editable"])
def environment(request: pytest.FixtureRequest) -> Environment:
    return request.getfixturevalue("installed" if request.param == "wheel" else "editable")


class TestStartUp:
    def test_nothing_but_our_package_is_imported(self, environment, bare):
        modules = "import sys; print(*sorted(sys.modules))"
        more = set(environment.run(modules).split()) - set(bare.run(modules).split())
        assert more == {"mlx_gemma4_patches"}

    def test_it_takes_less_than_a_millisecond(self, environment):
        environment.process("-c", "pass", PYTHONDONTWRITEBYTECODE="")
        microseconds = []
        for _ in range(10):
            report = environment.process("-X", "importtime", "-c", "pass").stderr
            line = re.search(r"\| +(\d+) \| +mlx_gemma4_patches$", report, re.MULTILINE)
            microseconds.append(int(line.group(1)))
        assert min(microseconds) < 1000

    def test_the_process_waits_for_a_host(self, environment):
        assert json.loads(environment.run(STATUS)) == {
            "active": False,
            "activation": "waiting for the import of a host",
        }


class TestImport:
    def test_a_host_is_patched(self, environment):
        assert environment.run(SHOW) == "patched"

    def test_a_host_is_patched_in_isolated_mode(self, environment):
        assert environment.run(SHOW, "-I") == "patched"

    def test_the_status_names_hosts_and_patches_and_no_problem(self, environment):
        status = json.loads(environment.run(f"import mlx_lm.fake; {STATUS}"))
        assert status["active"] is True
        assert status["hosts"] == {"mlx_lm": "9.9"}
        assert status["problems"] == []
        states = {patch["id"]: patch["state"] for patch in status["patches"]}
        assert states.pop("mlx_lm.demo") == "applied"
        assert set(states.values()) <= {"disabled"}

    def test_a_host_that_is_not_the_first_is_patched(self, environment):
        assert environment.run(f"import vllm_mlx, mlx_vlm; {SHOW}") == "patched"

    def test_a_server_started_with_dash_m_runs_patched(self, environment):
        done = environment.process("-m", "mlx_lm.server")
        assert (done.stdout, done.stderr) == ("__main__ patched\n", "")

    def test_spawned_processes_are_patched(self, installed, tmp_path):
        program = """
            import multiprocessing

            def show():
                from mlx_lm.fake import Answer
                print(Answer().text())

            if __name__ == "__main__":
                child = multiprocessing.get_context("spawn").Process(target=show)
                child.start()
                child.join()
        """
        done = installed.process(write(tmp_path / "program.py", program))
        assert (done.stdout, done.stderr) == ("patched\n", "")

    def test_a_host_may_import_its_submodules_in_a_thread(self, installed, bare):
        code, way = f"import mlx_lm; {SHOW}", "imports a submodule in a thread"
        assert bare.run(code, FAKE_HOST=way).split("\n") == ["no deadlock", "stock"]
        assert installed.run(code, FAKE_HOST=way).split("\n") == ["no deadlock", "patched"]

    def test_threads_that_import_the_first_hosts_at_once_find_them_patched(self, installed):
        code = """
            import importlib, sys, threading

            def load(host):
                barrier.wait()
                importlib.import_module(host)
                importlib.import_module("mlx_lm.fake")
                seen.append(sys.modules["mlx_lm.fake"].Answer().text())

            sys.setswitchinterval(1e-6)
            seen, barrier = [], threading.Barrier(9)
            hosts = 3 * ["mlx_lm", "mlx_vlm", "vllm_mlx"]
            threads = [threading.Thread(target=load, args=(host,)) for host in hosts]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            print(*seen)
        """
        shown = installed.run(textwrap.dedent(code) + FINDERS)
        assert shown.split() == [*9 * ["patched"], "Finder"]

    def test_a_thread_that_imports_a_host_never_keeps_another_from_forking(self, installed, bare):
        # fork takes the lock of logging first, the global import lock second
        code = f"""
            import _imp, importlib, logging, threading, time

            def take_the_import_lock():
                _imp.acquire_lock()
                _imp.release_lock()

            with logging._lock:
                importing = threading.Thread(
                    target=importlib.import_module, args=["mlx_lm.fake"], daemon=True
                )
                importing.start()
                time.sleep(0.5)  # long enough to get as far as our first line of log
                forking = threading.Thread(target=take_the_import_lock, daemon=True)
                forking.start()
                forking.join(10)
                print("stuck" if forking.is_alive() else "free")
            importing.join(10)
            {SHOW}
        """
        with_log = {"MLX_GEMMA4_PATCHES_LOG": "debug"}
        assert bare.run(code).split() == ["free", "stock"]
        done = installed.process("-c", textwrap.dedent(code), **with_log)
        assert done.stdout.split() == ["free", "patched"]

    def test_all_of_a_host_purged_and_imported_again_is_patched_again(self, installed):
        purge = "[sys.modules.pop(n) for n in list(sys.modules) if n.startswith('mlx_lm')]"
        code = f"import sys, mlx_lm.fake; {purge}; {SHOW}; {STATUS}"
        shown, status = installed.run(code).split("\n")
        assert shown == "patched"
        states = {patch["id"]: patch["state"] for patch in json.loads(status)["patches"]}
        assert states["mlx_lm.demo"] == "applied"

    def test_a_reloaded_module_is_patched_again(self, installed):
        code = f"import importlib, mlx_lm.fake; importlib.reload(mlx_lm.fake); {SHOW}"
        assert installed.run(code) == "patched"

    def test_a_module_imported_a_second_time_is_patched_again(self, installed):
        code = f"import sys, mlx_lm.fake; del sys.modules['mlx_lm.fake']; {SHOW}"
        assert installed.run(code) == "patched"

    @pytest.mark.parametrize(
        "again",
        ["importlib.reload(mlx_lm.fake)", "del sys.modules['mlx_lm.fake']; import mlx_lm.fake"],
    )
    def test_objects_from_before_a_reload_stay_patched(self, installed, again):
        code = f"""
            import importlib, sys, mlx_lm.fake
            before = mlx_lm.fake.Answer()
            {again}
            print(before.text(), sys.modules["mlx_lm.fake"].Answer().text())
        """
        assert installed.run(code) == "patched patched"

    def test_a_host_that_a_finder_in_front_of_ours_finds_is_patched(self, installed):
        code = f"""
            import sys
            from importlib.machinery import PathFinder

            class InFront:
                @staticmethod
                def find_spec(name, path=None, target=None):
                    return PathFinder.find_spec(name, path) if name == "mlx_lm" else None

            sys.meta_path.insert(0, InFront)
            {SHOW}
        """
        assert installed.run(code) == "patched"

    def test_asking_whether_a_host_is_there_imports_nothing_of_it(self, installed):
        code = """
            import importlib.util, sys
            print(importlib.util.find_spec("mlx_lm").origin, "mlx_lm" in sys.modules)
        """
        assert installed.run(code) == f"{installed.site / 'mlx_lm' / '__init__.py'} False"

    def test_a_host_that_is_not_installed_is_not_found(self, installed):
        assert installed.process("-c", "import mlx_lm.absent").returncode == 1


class TestActivate:
    """For programs that run no .pth files."""

    @pytest.fixture
    def without_site(self, installed):
        path = f"import sys; sys.path.append({str(installed.site)!r}); "
        return lambda code: installed.run(path + code, "-S")

    def test_dash_s_leaves_the_host_alone(self, without_site):
        assert without_site(SHOW) == "stock"
        assert json.loads(without_site(STATUS)) == {
            "active": False,
            "activation": "inactive: mlx_gemma4_patches.activate() was not called",
        }

    def test_a_host_imported_afterwards_is_patched(self, without_site):
        code = "import mlx_gemma4_patches; mlx_gemma4_patches.activate(); "
        assert without_site(code + SHOW) == "patched"

    def test_a_host_imported_before_is_patched_at_once(self, without_site):
        code = f"""{SHOW}; import mlx_gemma4_patches; mlx_gemma4_patches.activate(); {SHOW}"""
        assert without_site(code).split() == ["stock", "patched"]

    def test_a_host_imported_before_in_part_is_patched_in_full(self, without_site):
        code = "import mlx_lm, mlx_gemma4_patches; mlx_gemma4_patches.activate(); "
        assert without_site(code + SHOW) == "patched"

    @pytest.mark.parametrize("host", ["", "import mlx_lm"])
    def test_a_second_call_changes_nothing(self, installed, host):
        again = "import mlx_gemma4_patches; mlx_gemma4_patches.activate()"
        assert installed.run(f"{again}\n{host}\n{again}\n{FINDERS}") == "Finder"


class TestSwitchedOff:
    OFF = json.dumps({"active": False, "activation": "off: MLX_GEMMA4_PATCHES=0"})

    def test_hosts_are_left_alone(self, environment):
        code = f"{SHOW}; {STATUS}"
        assert environment.run(code, MLX_GEMMA4_PATCHES="0").split("\n") == ["stock", self.OFF]

    def test_nothing_stands_on_the_meta_path(self, environment):
        assert environment.run(FINDERS, MLX_GEMMA4_PATCHES="0") == ""

    def test_a_program_can_do_it_before_it_imports_a_host(self, installed):
        code = "import os; os.environ['MLX_GEMMA4_PATCHES'] = '0'; "
        assert installed.run(code + SHOW) == "stock"

    def test_activate_does_nothing(self, installed):
        code = f"import mlx_lm, mlx_gemma4_patches; mlx_gemma4_patches.activate(); {SHOW}"
        assert installed.run(code, MLX_GEMMA4_PATCHES="0") == "stock"


class TestFailures:
    @pytest.fixture
    def broken_yaml(self, tmp_path):
        """Variables under which our engine cannot be imported."""
        write(tmp_path / "yaml.py", "raise RuntimeError('two\\nlines')")
        return {"PYTHONPATH": str(tmp_path)}

    def test_when_we_cannot_start_the_hosts_run_and_one_line_says_so(self, installed, broken_yaml):
        done = installed.process("-c", f"import mlx_vlm; {SHOW}; {STATUS}", **broken_yaml)
        failure = "failed: RuntimeError: two lines"
        status = json.dumps({"active": False, "activation": failure})
        assert done.stdout.split("\n") == ["stock", status, ""]
        assert done.stderr == f"mlx-gemma4-patches {failure}; hosts run without patches\n"

    def test_when_we_cannot_start_strict_stops_every_import_of_a_host(self, installed, broken_yaml):
        code = """
            for attempt in (1, 2):
                try:
                    import mlx_lm
                except ImportError as error:
                    print(error, "from", repr(error.__cause__)[:12])
        """
        shown = installed.run(code, **broken_yaml, MLX_GEMMA4_PATCHES_STRICT="1")
        line = "mlx-gemma4-patches failed: RuntimeError: two lines from RuntimeError"
        assert shown.split("\n") == [line, line]

    def test_a_hosts_own_error_passes_unchanged_and_a_retry_is_patched(self, installed):
        code = f"""
            import os
            try:
                import mlx_lm
            except ImportError as error:
                print(repr(error), error.__cause__, error.__context__)
            os.environ["FAKE_HOST"] = "mended"
            {SHOW}
        """
        shown = installed.run(code, FAKE_HOST="broken").split("\n")
        assert shown == ["ImportError('the host is broken') None None", "patched"]
