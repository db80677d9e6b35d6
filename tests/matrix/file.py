"""Reads and writes ``compat_matrix.yaml`` as plain data, all of its documents as one mapping."""

from __future__ import annotations

from pathlib import Path

import yaml

HEADER = """\
# Which fault is in which release. Titles, conditions and links are written by hand; fingerprints
# (code) and evidence by `nox -s matrix -- --write`; keys: README.md.
"""


def read(file: Path) -> dict:
    """The documents of ``file`` as one."""
    data: dict = {"patches": {}}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for document in yaml.load_all(file.read_text(encoding="utf-8"), Loader=loader):
        data["patches"] |= document.pop("patches", {})
        data |= document
    del data["end"]
    return data


class _Plain(yaml.SafeDumper):
    """Writes what is said twice twice: a row is read by itself."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def save(data: dict, file: Path) -> None:
    documents = [{key: data[key] for key in ("schema", "releases", "gemma4_since", "advice")}]
    for host in ("mlx_lm", "mlx_vlm", "vllm_mlx"):
        rows = {i: data["patches"][i] for i in sorted(data["patches"]) if i.startswith(f"{host}.")}
        documents.append({"host": host, "patches": rows})
    evidence = dict(sorted(data["evidence"].items()))
    documents.append({"combinations": data["combinations"], "evidence": evidence})
    ends = [*["document"] * (len(documents) - 1), "file"]  # so that a cut shows
    documents = [{**d, "end": end} for d, end in zip(documents, ends, strict=True)]
    text = yaml.dump_all(
        documents, Dumper=_Plain, sort_keys=False, width=100, default_flow_style=None
    )
    file.write_text(HEADER + text, encoding="utf-8")
