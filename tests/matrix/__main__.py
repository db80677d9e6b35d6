"""The release matrix: every probe and every host test on every release, stock and patched.

``python -m tests.matrix`` measures and fails where ``compat_matrix.yaml`` says otherwise;
``--write`` puts fingerprints and outcomes into the file instead.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from mlx_gemma4_patches import matrix

from . import environments
from .file import read, save

FILE = environments.ROOT / matrix.FILE
SUBJECTS = ("vllm-mlx", "mlx-vlm", "mlx-lm")  # a combination is about the first of these in it
OUTCOMES = {"proved": "fixed", "not_needed": "fine", "not_applicable": "not_applicable"}


def main() -> int:
    options = _parser().parse_args()
    data = read(FILE)
    chosen = {
        name: combination
        for name, combination in data["combinations"].items()
        if not options.only or any(name.startswith(part) for part in options.only)
    }
    if not chosen:
        print(f"no combination begins with {' or '.join(options.only)}; {FILE.name} names them all")
        return 2
    print(f"{len(chosen)} combinations", flush=True)
    pythons = {name: environments.base(name) for name in {c["base"] for c in chosen.values()}}
    errors: list[str] = []

    prints = _side_by_side(_fingerprints, chosen, pythons)
    if unlisted := _unlisted(data, prints):
        print(*unlisted, sep="\n")
        return 1
    if options.write:
        _write_fingerprints(data, chosen, prints)
        save(data, FILE)
    else:
        errors += _wrong_fingerprints(data, chosen, prints)

    results = _side_by_side(_doctor, chosen, pythons)
    for name, result in results.items():
        errors += _wrong_outcomes(data, name, result)
    if options.write:
        _write_evidence(data, results)
        save(data, FILE)
    else:
        errors += _wrong_evidence(data, results)
    tested = _tested(options.tests, chosen)
    job = _host_tests if options.tests == "all" else _last_host_tests
    for name, failure in _side_by_side(job, tested, pythons, at_once=1).items():
        errors += [f"{name}: {failure}"] if failure else []

    print(*errors, sep="\n")
    if options.write:
        print("PATCHES.md: python -m tests.matrix.table")
    print(f"{len(chosen)} combinations, {len(errors)} disagreements")
    return 1 if errors else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write what is measured to the file")
    parser.add_argument(
        "--tests",
        choices=("all", "last", "none"),
        default="all",
        help="run the host tests too: on all combinations, or each host's last on either base but "
        "the newest mlx-lm and mlx-vlm, on which `pytest` runs all tests; on the older base then "
        "the contract of each patch alone",
    )
    parser.add_argument("only", nargs="*", help="beginnings of names of combinations")
    return parser


def _tested(which: str, chosen: dict) -> dict:
    """The combinations to run the host tests on."""
    if which == "all":
        return chosen
    last = {(_subject(c), c["base"]): name for name, c in chosen.items()} if which == "last" else {}
    tested_by_pytest = {("mlx-lm", "new"), ("mlx-vlm", "new")}
    return {name: chosen[name] for key, name in last.items() if key not in tested_by_pytest}


def _side_by_side(job: Any, chosen: dict, pythons: dict, at_once: int = 2) -> dict[str, Any]:
    results = {}
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        futures = {
            pool.submit(_timed, job, name, combination, pythons[combination["base"]]): name
            for name, combination in chosen.items()
        }
        for future in concurrent.futures.as_completed(futures):
            name = futures[future]
            results[name], seconds = future.result()
            print(f"{job.__name__[1:].replace('_', ' ')} of {name}: {seconds:.0f} s", flush=True)
    return {name: results[name] for name in chosen}


def _timed(job: Any, name: str, combination: dict, python: Any) -> tuple[Any, float]:
    print(f"{job.__name__[1:].replace('_', ' ')} of {name} ...", flush=True)
    start = time.monotonic()
    return job(combination, python), time.monotonic() - start


def _fingerprints(combination: dict, python: Any) -> dict[str, dict[str, str]]:
    environ = {**environments.environ(combination), "MLX_GEMMA4_PATCHES": "0"}
    done = subprocess.run(
        [python, "-m", "tests.matrix.fingerprints"],
        **{"cwd": environments.ROOT, "env": environ, "capture_output": True, "text": True},
    )
    if done.returncode:
        raise RuntimeError(f"{combination}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _doctor(combination: dict, python: Any) -> dict[str, Any]:
    opt_in = [row.id for row in matrix.load().rows.values() if row.opt_in]
    environ = {
        **environments.environ(combination),
        "MLX_GEMMA4_PATCHES_ENABLE": ",".join(opt_in),  # these need evidence too
    }
    done = subprocess.run(
        [python, "-m", "mlx_gemma4_patches", "doctor", "--json"],
        **{"env": environ, "capture_output": True, "text": True},
    )
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        raise RuntimeError(f"{combination}: {done.stdout[-500:]}{done.stderr[-2000:]}") from None


def _last_host_tests(combination: dict, python: Any) -> str | None:
    options = ["-m", "contract"] if combination["base"] == "old" else []
    return _host_tests(combination, python, options)


def _host_tests(combination: dict, python: Any, options: Sequence[str] = ()) -> str | None:
    chosen = ["tests/hosts", "--subject", _subject(combination).replace("-", "_"), *options]
    side_by_side = ["-n", "auto", "--dist", "loadfile"]
    done = subprocess.run(
        [python, "-m", "pytest", "-qx", "-pno:cacheprovider", *side_by_side, *chosen],
        cwd=environments.ROOT,
        env=environments.environ(combination),
        capture_output=True,
        text=True,
    )
    return None if done.returncode == 0 else f"host tests failed\n{done.stdout[-3000:]}"


def _subject(combination: dict) -> str:
    return next(name for name in SUBJECTS if name in combination)


def _about(patch_id: str, data: dict, name: str) -> bool:
    """Whether a combination is evidence for a patch: it is about the patch's host."""
    return _subject(data["combinations"][name]).replace("-", "_") == patch_id.partition(".")[0]


def _unlisted(data: dict, prints: dict) -> list[str]:
    """Patches without a row, and rows without a patch, each with the command that mends it."""
    registered = set().union(*prints.values())
    hosts = {patch_id.partition(".")[0] for patch_id in registered}
    rows = {patch_id for patch_id in data["patches"] if patch_id.partition(".")[0] in hosts}
    return [
        f"{patch_id} has no row in {FILE.name}: python -m tests.new {patch_id} lays one"
        for patch_id in sorted(registered - rows)
    ] + [
        f"{patch_id} has a row and no entry point: python -m tests.new {patch_id} lays one, and "
        "python -m pip install --no-deps --no-build-isolation -e . registers it"
        for patch_id in sorted(rows - registered)
    ]


def _write_command(name: str) -> str:
    return f'python -m tests.matrix --write --tests none "{name}"'


def _own_prints(data: dict, chosen: dict, prints: dict) -> dict[str, dict[str, dict[str, str]]]:
    """``{patch id: {release: {target: fingerprint}}}``."""
    found: dict[str, dict] = {patch_id: {} for patch_id in data["patches"]}
    for name, combination in chosen.items():
        for patch_id, targets in prints[name].items():
            distribution = patch_id.partition(".")[0].replace("_", "-")
            if targets and distribution in combination:
                found[patch_id][combination[distribution]] = targets
    return found


def _write_fingerprints(data: dict, chosen: dict, prints: dict) -> None:
    for patch_id, by_release in _own_prints(data, chosen, prints).items():
        row = data["patches"][patch_id]
        known = {r: part["targets"] for part in row.get("code", []) for r in part["releases"]}
        known.update(by_release)
        groups: list[dict] = []
        for release in data["releases"][patch_id.partition(".")[0].replace("_", "-")]:
            if release not in known:
                continue
            same = next((g for g in groups if g["targets"] == known[release]), None)
            if same:
                same["releases"].append(release)
            else:
                groups.append({"releases": [release], "targets": known[release]})
        row["code"] = groups


def _wrong_fingerprints(data: dict, chosen: dict, prints: dict) -> list[str]:
    errors = []
    for patch_id, by_release in _own_prints(data, chosen, prints).items():
        parts = data["patches"][patch_id].get("code", [])
        code = {release: part["targets"] for part in parts for release in part["releases"]}
        for release, targets in by_release.items():
            if code.get(release) != targets:
                what = "are others" if release in code else "are not written"
                combination = f"{patch_id.partition('.')[0].replace('_', '-')} {release}"
                errors.append(
                    f"{patch_id}: the fingerprints of {release} {what}; "
                    f"{_write_command(combination)} writes them"
                )
    return errors


def _wrong_outcomes(data: dict, name: str, result: dict) -> list[str]:
    errors = [f"{name}: {problem}" for problem in result["problems"]]
    for patch in result["patches"]:
        if patch["verdict"] not in OUTCOMES:
            seen = {mode: patch[mode] for mode in ("stock", "patched")}
            errors.append(f"{name}: {patch['id']} {patch['verdict']} ({patch['reason']}) {seen}")
    return errors


def _outcomes(result: dict) -> dict[str, str]:
    return {
        patch["id"]: OUTCOMES[patch["verdict"]]
        for patch in result["patches"]
        if patch["verdict"] in OUTCOMES
    }


def _written(data: dict, patch_id: str) -> dict[str, str]:
    """The outcome by combination that the file has for a patch."""
    evidence = data["evidence"].get(patch_id, {})
    return {name: outcome for outcome in matrix.OUTCOMES for name in evidence.get(outcome, ())}


def _write_evidence(data: dict, results: dict) -> None:
    evidence = {}
    for patch_id in data["patches"]:
        outcomes = _written(data, patch_id)
        measured = data["evidence"].get(patch_id, {}).get("measured", {})
        for name, result in results.items():
            outcomes.pop(name, None)
            if _about(patch_id, data, name) and patch_id in _outcomes(result):
                outcomes[name] = _outcomes(result)[patch_id]
            for patch in result["patches"] if _about(patch_id, data, name) else ():
                if patch["id"] == patch_id and patch["verdict"] == "proved":
                    measured = {m: patch[m]["measured"] for m in ("stock", "patched")}
        evidence[patch_id] = {"measured": measured} | {
            outcome: [name for name in data["combinations"] if outcomes.get(name) == outcome]
            for outcome in matrix.OUTCOMES
            if outcome in outcomes.values()
        }
    data["evidence"] = evidence


def _wrong_evidence(data: dict, results: dict) -> list[str]:
    errors = []
    for patch_id in data["patches"]:
        written = _written(data, patch_id)
        for name, result in results.items():
            measured = _outcomes(result).get(patch_id)
            if _about(patch_id, data, name) and measured != written.get(name):
                errors.append(
                    f"{name}: {patch_id} is {measured}, written is {written.get(name)}; "
                    f"{_write_command(name)} writes it"
                )
    return errors


if __name__ == "__main__":
    sys.exit(main())
