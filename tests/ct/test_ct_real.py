"""Recipes of CT from an archive to an encoder, on the real CT that is bundled, made small.

Noise shows that shapes fit. A real volume also shows that bodies are found, crops hold some of
them, and losses of every objective stay finite on values as scanners give them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from test_ct_recipes import ELSEWHERE, NAMES, small

from medcl import recipe as recipes
from medcl.archive.index import Index, build
from medcl.embeddings.embeddings import embed
from medcl.engine.pretrain import pretrain
from medcl.run import load_samples
from medcl_ct.plugin import plugin

SPACING = "prepare.spacing=[8.0,8.0,8.0]"


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Index:
    assert plugin.sample is not None
    out = tmp_path_factory.mktemp("real") / "idx"
    build(plugin.sample, out, plugin)
    return Index.open(out)


def shortened(name: str) -> recipes.Recipe:
    """Two steps of four samples, 8 mm a voxel, on the network that `small` makes."""
    recipe = recipes.load(name)
    stack, flat = recipe.dataset["kind"] == "stack", len(recipe.dataset["size"]) == 2
    size = "[32,32]" if flat else "[12,32,32]" if stack else "[32,32,32]"
    apart = recipe.views.get("slices", "volume") != "volume"
    view = "[8,32,32]" if apart and not flat and not stack else "[32]"
    more = [
        *(f"views.size={view}", SPACING, f"dataset.size={size}"),
        *(
            "trainer.steps=2",
            f"trainer.batch_size={2 if stack else 4}",
            "trainer.workers=0",
            "split.test=0.34",
        ),
        *("trainer.precision='32'", "trainer.log_every=1", "monitor.every=100"),
    ]
    if name == "ct/i-jepa-3d":
        more.append("encoder.patch=[8,8,8]")  # must divide the views
    if "local_size" in recipe.views:
        more.append("views.local_size=[16]")
    if "grid" in recipe.method.arguments:
        more.append("method.grid=[1,2,2]")  # must divide the views
    return small(name, tuple(more))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ELSEWHERE])
def test_a_recipe_runs_on_real_volumes(bundled: Index, tmp_path: Path, name: str) -> None:
    run = pretrain(shortened(name), bundled.path, tmp_path / "run")
    table = pl.read_csv(run.path / "metrics.csv", infer_schema=False)
    losses = table["loss"].cast(pl.Float64).drop_nulls().to_numpy()
    assert len(losses)
    assert np.isfinite(losses).all()
    samples = load_samples(run.recipe, run.data)
    x = embed(run.encoder(), samples.at(np.arange(min(4, len(samples))))).x
    assert np.isfinite(x).all()
    assert x.std(axis=0).max() > 0, "all samples are embedded alike"
