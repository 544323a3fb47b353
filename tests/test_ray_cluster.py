"""A Ray cluster of two nodes on this machine: the same results as without it.

Each node is a raylet with processes of its own, as on two machines that share a file system.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from test_cluster_page import SMALL, blocks

import medcl
from medcl import recipe as recipes
from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.io.pmap import pmap
from medcl_biosignals.plugin import plugin

RECORDS = ("101", "106")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes with a processor each."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'medcl[ray]'")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        # What is installed on the machines of a cluster; here also this file.
        path = [str(Path(__file__).parent), *filter(None, sys.path)]
        patch.setenv("PYTHONPATH", os.pathsep.join(path))
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        started.add_node(num_cpus=1)
        started.wait_for_nodes()
        patch.setenv("RAY_ADDRESS", started.address)
        yield started.address
        started.shutdown()


def node(number: int) -> str:
    import ray

    time.sleep(0.2)
    return str(ray.get_runtime_context().get_node_id())


@pytest.mark.long
def test_both_nodes_work(cluster: str) -> None:
    assert len({found for _, found in pmap(node, range(12), engine="ray")}) == 2


@pytest.mark.long
def test_index_prepare_and_embed_give_the_same_on_two_nodes(cluster: str, tmp_path: Path) -> None:
    assert plugin.sample is not None
    archive, key = tmp_path / "archive", tmp_path / "key"
    archive.mkdir()
    for path in plugin.sample.iterdir():
        if path.name.split(".")[0] in RECORDS:
            shutil.copy2(path, archive / path.name)
    key.write_text("0123456789abcdef" * 4)
    recipe = recipes.load("biosignals/simclr-ecg", ["prepare.fs=100"])
    indexes, arrays = {}, {}
    for engine in ("local", "ray"):
        out = tmp_path / f"index-{engine}"
        build(archive, out, plugin, key_file=key, engine=engine)  # type: ignore[arg-type]
        indexes[engine] = Index.open(out)
        made = prepare(indexes[engine], plugin, recipe.prepare, engine=engine)  # type: ignore[arg-type]
        arrays[engine] = made.arrays
    assert indexes["ray"].items.equals(indexes["local"].items)
    assert len(indexes["ray"].items) == len(RECORDS)
    for item in indexes["local"].items["id"]:
        one, other = (held(item) for held in arrays.values())
        assert one.keys() == other.keys()
        assert all(np.asarray(one[n]).tobytes() == np.asarray(other[n]).tobytes() for n in one)

    data = indexes["local"].path
    x = {}
    for engine in ("local", "ray"):
        out = tmp_path / f"embeddings-{engine}"
        x[engine] = medcl.embed("ecg-small", data, out=out, batch_size=16, engine=engine).x  # type: ignore[arg-type]
    np.testing.assert_array_equal(x["ray"], x["local"])

    bags = {}
    for engine in ("local", "ray"):
        out = tmp_path / f"bags-{engine}"
        medcl.embed_bags("ecg-small", out, data=data, engine=engine)  # type: ignore[arg-type]
        bags[engine] = {path.name: path for path in sorted(out.glob("*.h5"))}
    assert len(bags["local"]) == len(RECORDS)
    assert bags["ray"].keys() == bags["local"].keys()
    for name, path in bags["local"].items():
        np.testing.assert_array_equal(features(path), features(bags["ray"][name]))


def features(bag: Path) -> np.ndarray:
    import h5py

    with h5py.File(bag) as opened:
        return np.asarray(opened["features"])


def commands(place: Path, archive: Path) -> list[list[str]]:
    """The commands of the page's section, for one folder's outputs."""
    lines = [line for line in blocks("Ray")[0].splitlines() if line.startswith("medcl ")]
    values = {"ARCHIVE": archive, "RECIPE": f"biosignals/simclr-ecg {SMALL}"}
    values |= {name: place / name for name in ("IDX", "RUN", "EMBEDDINGS", "BAGS")}
    values["PREDICTIONS"] = place / "PREDICTIONS"
    pattern = r"\b(" + "|".join(values) + r")\b"
    return [re.sub(pattern, lambda name: str(values[name[0]]), line).split() for line in lines]


@pytest.mark.long
def test_the_commands_of_the_page_give_what_they_give_without_ray(
    cluster: str, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    assert plugin.sample is not None
    for path in plugin.sample.iterdir():
        if path.name.split(".")[0] in ("101", "106", "108", "109"):
            shutil.copy2(path, archive / path.name)
    (tmp_path / "key").write_text("0123456789abcdef" * 4)
    environment = {**os.environ, "MEDCL_KEY_FILE": str(tmp_path / "key"), "OMP_NUM_THREADS": "1"}

    def medcl_(*words: str) -> None:
        command = [sys.executable, "-m", "medcl_cli.main", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]

    homes = {engine: tmp_path / engine for engine in ("ray", "local")}
    for engine, home in homes.items():
        home.mkdir()
        verbs = []
        for verb, *words in (line[1:] for line in commands(home, archive)):
            verbs.append(verb)
            if verb == "embed" and "RUN" not in os.listdir(home):
                pretrain = ["--data", f"{home}/IDX", "--out", f"{home}/RUN"]
                medcl_("pretrain", "biosignals/simclr-ecg", *SMALL.split(), *pretrain)
            medcl_(verb, *(words if engine == "ray" else words[:-2]))
        assert verbs == ["index", "prepare", "embed", "embed", "predict"]

    def table(path: str) -> list[pl.DataFrame]:
        frames = [pl.read_parquet(home / path) for home in homes.values()]
        return [f.sort(f.columns[0], maintain_order=True) for f in frames]

    tables = [f"PREDICTIONS{part}.parquet" for part in ("", ".records", ".patients")]
    for written in ("IDX/items.parquet", *tables):
        here, there = table(written)
        assert len(here)
        assert_frame_equal(here, there, check_exact=True)
    for folder, suffix in (("EMBEDDINGS", ".npy"), ("IDX/store", ".safetensors"), ("BAGS", ".h5")):
        ray, local = ({p.name: p for p in (h / folder).rglob(f"*{suffix}")} for h in homes.values())
        assert ray
        assert ray.keys() == local.keys()
        for name, path in ray.items():
            if suffix == ".h5":  # the rest of the file names its run
                np.testing.assert_array_equal(features(path), features(local[name]))
            else:
                assert path.read_bytes() == local[name].read_bytes()
