"""A finished run of any plugin with an untrained encoder: what is tested is not its features."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from safetensors.torch import save_file

from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.archive.index import Index, build
from medcl.private import remember
from medcl.run import Run, build_encoder


def indexed(archive: Path, plugin: str, out: Path) -> Index:
    key = out.parent / "key"
    key.write_bytes(b"a test's key, of no secret")
    build(archive, out, plugins.get(plugin), key_file=key)
    return Index.open(out)


def bare_run(raw: Mapping[str, Any], index: Index, out: Path) -> Run:
    """Every second patient, in the order of the items' paths, is a test patient."""
    recipe = recipes.parse(
        {
            "name": "bare",
            "method": {"name": "simclr", "positives": "instance"},
            "probe": {"fractions": [1.0], "bootstraps": 100, "baselines": []},
            **raw,
        }
    )
    out.mkdir(parents=True)
    (out / "recipe.yaml").write_text(recipes.dump(recipe), encoding="utf-8")
    remember(out, data=index.path)
    facts = {"finished": True, "command": "bare", "versions": {"medcl": "test"}}
    (out / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    pairs = index.items.select("id", "patient").iter_rows()
    owners = dict.fromkeys(p for _, p in sorted(pairs, key=lambda row: index.locate(row[0])))
    parts = [("train", "train", "test", "test")[n % 4] for n in range(len(owners))]
    pl.DataFrame({"patient": list(owners), "split": parts}).write_parquet(out / "split.parquet")
    save_file(build_encoder(recipe, 0).state_dict(), out / "encoder.safetensors")
    return Run.open(out)
