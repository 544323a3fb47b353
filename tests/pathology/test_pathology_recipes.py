"""Every recipe for tiles, made small, trains on real tiles; so does the whole way to a probe."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.engine.data import Batches, select
from medcl.methods.contract import State, after_step
from medcl.registry import resolve
from medcl.run import build_encoder
from medcl_pathology.plugin import plugin

NAMES = [
    name
    for name in recipes.available()
    if name.startswith("pathology/") and name.endswith("-tiles")
]
ENCODER = {"resnet": {"depth": 10, "base": 4}, "vit": {"width": 48, "depth": 1, "heads": 4}}
METHOD = {"hidden": 32, "out": 16, "prototypes": 8, "queue": 32, "frozen": 0, "bottleneck": 16}


def small(name: str, *more: str) -> recipes.Recipe:
    recipe = recipes.load(name)
    overrides = [f"encoder.{k}={v}" for k, v in ENCODER[recipe.encoder.name].items()]
    known = recipe.method.arguments
    overrides += [f"method.{key}={value}" for key, value in METHOD.items() if known.get(key)]
    overrides += ["prepare.size=64", "dataset.size=64", "views.size=48"]
    overrides += ["views.local_size=32"] if recipe.views["local_size"] else []
    return recipes.load(name, [*overrides, *more])


def test_they_are_all_there():
    found = {name.removeprefix("pathology/").removesuffix("-tiles") for name in NAMES}
    assert found == {
        "simclr", "moco", "swav", "dino", "dinov2", "ibot", "i-jepa", "moco-v3", "can",
        "vicreg", "neighbours", "songci", "kather", "msn", "vtp",
        "cmae", "debcse", "unicon",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_trains_on_tiles_of_a_real_slide(name, cmu_index):
    recipe = small(name)
    prepared = prepare(cmu_index, plugin, recipe.prepare)
    samples = resolve(plugin.dataset)(prepared.items, prepared.arrays, **recipe.dataset)
    split = dict.fromkeys(samples.patients, "train")
    torch.manual_seed(0)
    method = recipes.method_factory(recipe)(build_encoder(recipe, 0), **recipe.method.arguments)
    pairs = any(view.source for view in method.views)
    batches = Batches(select(samples, split), batch_size=8, seed=0, pairs=pairs)
    views = resolve(plugin.views)(**recipe.views)
    optimiser = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=1e-3)
    before = [p.detach().clone() for p in method.encoder.parameters()]
    generator = torch.Generator().manual_seed(0)
    for step in range(3):
        _, batch = batches[step]
        batch["patient"] = torch.arange(8)  # as if each tile were somebody else's
        sources = [batch["x"], batch["partner.x"] if pairs else batch["x"]]
        shown = [views(sources[view.source], generator, view.kind) for view in method.views]
        result = method.step(shown, batch, State(step, 3))
        optimiser.zero_grad()
        result["loss"].backward()
        optimiser.step()
        after_step(method, State(step, 3))
        assert result["loss"].isfinite()
    after = list(method.encoder.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.slow
@pytest.mark.shared_data
def test_from_slides_and_tiles_to_a_probe(shared_data, tmp_path, key_file):
    """Kather's tiles and those of both slides; far too few for any figure."""
    from medcl.embeddings.bags import embed_bags
    from medcl.engine.pretrain import pretrain
    from medcl.probe.probe import probe

    shutil.copytree(shared_data / "wsi", tmp_path / "wsi")
    build(tmp_path / "wsi", tmp_path / "idx", plugin, key_file=key_file, reader={"mpp": 0.5})
    recipe = small(
        "pathology/kather-tiles",
        "trainer.steps=4",
        "trainer.batch_size=16",
        "trainer.workers=0",
        "trainer.accelerator=cpu",
        "monitor.every=2",
        "monitor.samples=32",
        "prepare.size=128",
        "split.test=0.5",
        "probe.fractions=[1.0]",
        "probe.bootstraps=100",
    )
    run = pretrain(recipe, tmp_path / "idx", tmp_path / "run")
    result = probe([run])
    assert "handcrafted" in str(result)
    done = embed_bags(run.recipe, run.data, tmp_path / "bags", run=run)
    assert (done.written, done.failed) == (26, {})
    split = run.split()
    items = Index.open(tmp_path / "idx").items
    tiles = items.filter(items["kind"] == "tile")
    assert {split[p] for p in tiles["patient"]} == {"train", "test"}


@pytest.mark.parametrize("name", sorted(set(plugins.get("pathology").encoders) & set(ENCODER)))
def test_an_encoder_gives_its_width(name):
    encoder = resolve(plugin.encoders[name])(**ENCODER[name])
    x = torch.from_numpy(np.random.default_rng(0).random((2, 3, 64, 64), dtype=np.float32))
    assert encoder(x).shape == (2, encoder.width)


@pytest.mark.slow
def test_the_report_shows_tiles_beside_their_views():
    draw = resolve(plugin.preview)
    x = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    figure = draw(x, resolve(plugin.views)(size=48, mix=0.5))
    assert len(figure.axes) == 16
