"""CT recipes that the bundled volumes cannot train: their parts, made small, fit together."""

from __future__ import annotations

import pytest
import torch

from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.methods.contract import State, after_step
from medcl.registry import resolve
from medcl.run import build_encoder

ALL = [name for name in recipes.available() if name.startswith("ct/")]
NAMES = [name for name in ALL if recipes.load(name).method is not None]  # test_ct_segment: the rest
# What makes a recipe small without changing what it does.
ENCODER = {
    "resnet2d": {"depth": 10, "base": 4},
    "resnet3d": {"depth": 10, "base": 4},
    "resenc3d": {"widths": [4, 8], "blocks": [1, 1]},
    "vit3d": {"width": 48, "depth": 1, "heads": 4},
    "vit2d": {"width": 48, "depth": 1, "heads": 4},
    "joint": {"depth": 10, "base": 4, "width": 32, "layers": 1, "heads": 4, "hidden": 32},
}
METHOD = {"hidden": 32, "out": 16, "prototypes": 8, "volume_prototypes": 4, "queue": 32}
METHOD |= {"inner": 16, "volume_queue": 8, "frozen": 0, "slices_first": 0.0, "depth": 1, "heads": 4}
METHOD |= {"bottleneck": 16}

SIZES = {  # of networks that begin at full resolution: dataset.size, views.size
    "ct/mae-unet-3d": ([48, 48, 48], [32]),
    "ct/volume-fusion-3d": ([32, 32, 32], [24]),
    "ct/voco-3d": ([8, 24, 24], [8, 24, 24]),
}

ELSEWHERE = {
    **dict.fromkeys(
        ("ct/organmnist3d", "ct/organsmnist", "ct/nodulemnist3d"), "a file of MedMNIST"
    ),
    **dict.fromkeys(
        ("ct/mr-simclr-2d", "ct/mr-mae-3d", "ct/pet-mae-3d", "ct/mr-demo", "ct/pet-demo"),
        "MR or PET",
    ),
    "ct/noisy-headers": "labels in the headers",
    "ct/tip-3d": "a table",
    "ct/site-adapt": "two sites and a run",
}
"""What recipes need that the bundled sample has not. `test_ct_real` trains the others on it."""


def small(name: str, more: tuple[str, ...] = ()) -> recipes.Recipe:
    recipe = recipes.load(name)
    smaller = ENCODER[recipe.encoder.name]
    overrides = [f"encoder.{key}={value}" for key, value in smaller.items()]
    if name in SIZES:
        sample, view = SIZES[name]
        overrides += [f"dataset.size={sample}", f"views.size={view}"]
    known = recipe.method.arguments
    overrides += [f"method.{key}={value}" for key, value in METHOD.items() if known.get(key)]
    if "width" in known:
        overrides.append("method.width=16")
    return recipes.load(name, [*overrides, *more])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name in ELSEWHERE])
def test_its_parts_fit_together(name):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    recipe = small(name)
    parts = plugins.get("ct")
    size = tuple(recipe.dataset["size"])
    if len(size) == 3 and recipe.encoder.name == "joint":
        size = (12, *size[1:])
    torch.manual_seed(0)
    batch = 2 if len(size) == 3 else 4
    x = torch.randn(batch, 1, *size) * 300
    views = resolve(parts.views)(**recipe.views)
    method = recipes.method_factory(recipe)(build_encoder(recipe, 0), **recipe.method.arguments)
    generator = torch.Generator().manual_seed(0)
    shown = [views(x, generator, view.kind) for view in method.views]
    carried = {"patient": torch.arange(batch)}
    for need in method.needs:
        if need == "table":
            carried[need] = torch.zeros(batch, method.tabular.columns)
        else:  # a label, a site: a code for each sample
            carried[need] = torch.arange(batch) % 2
    result = method.step(shown, carried, State(0, 2))
    result["loss"].backward()
    after_step(method, State(0, 2))
    assert result["loss"].isfinite()
    assert result["embedding"].shape == (batch, method.encoder.width)
    torch.set_num_threads(threads)


def test_every_ct_encoder_and_recipe_is_there():
    encoders = set(plugins.get("ct").encoders)
    assert set(ENCODER) <= encoders
    expected = {"joint-2d3d", "simclr-2d", "simclr-3d", "moco-2d", "swav-2d", "byol-2d", "spark-2d"}
    expected |= {"spark-3d", "mae-3d", "cvrl-3d", "less-is-more", "tip-3d"}
    expected |= {"mae-unet-3d", "volume-fusion-3d", "voco-3d", "segment"}
    assert {name.removeprefix("ct/") for name in ALL} >= expected
