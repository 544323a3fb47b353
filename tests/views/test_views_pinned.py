"""The fixed order of views gives what it gave before views could be composed.

``pinned.npz`` was written at commit e9a4e34, and again when views of signals and tiles became
faster and stopped waiting for devices, which changed their random numbers. On the processor and
torch that wrote it the views are the same to the last bit; elsewhere sums may be taken in another
order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stops import counted

from medcl import plugin as plugins
from medcl.nn import host
from medcl.registry import resolve

PINNED = Path(__file__).parent / "pinned.npz"
_SIGNAL = dict.fromkeys(
    ("crop", "shift", "stretch", "rotate", "flip_sign", "channel_drop", "channel_permute", "colour",
     "phase", "low_pass", "frequency_mask", "motion", "electrode"), 0.5,
)  # fmt: skip
CASES: dict[str, tuple[str, tuple[int, ...], str, dict[str, Any]]] = {
    "signal": ("biosignals", (3, 2, 200), "global", {}),
    "signal-all": ("biosignals", (3, 2, 200), "global", {"fs": 100.0, **_SIGNAL}),
    "signal-local": ("biosignals", (3, 2, 200), "local", {"fs": 100.0, **_SIGNAL}),
    "signal-vcg": ("biosignals", (2, 12, 100), "global", {"vcg": 1.0}),
    "slice": ("ct", (4, 1, 24, 24), "global", {"size": (16,), "elastic": 0.5, "cutout": 0.5}),
    "slice-local": ("ct", (4, 1, 24, 24), "local", {"size": (16,)}),
    "volume": ("ct", (3, 1, 10, 16, 16), "global",
               {"size": (8,), "tilt_degrees": 10.0, "drop_slices": 0.5}),
    "volume-consistent": ("ct", (3, 1, 10, 16, 16), "global",
                          {"size": (6, 12, 12), "slices": "consistent"}),
    "volume-independent": ("ct", (2, 1, 6, 16, 16), "global",
                           {"size": (12,), "slices": "independent", "shown": (40.0, 400.0)}),
    "tile": ("pathology", (6, 3, 24, 24), "global", {"size": 16, "grey": 0.2, "focus": 0.5}),
    "tile-local": ("pathology", (6, 3, 24, 24), "local", {"mix": 0.5, "mix_with": "reinhard"}),
    "tile-macenko": ("pathology", (6, 3, 24, 24), "global", {"mix": 0.5}),
}  # fmt: skip


def sample(plugin: str, shape: tuple[int, ...]) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return {"biosignals": x, "ct": 300 * x, "pathology": torch.sigmoid(x)}[plugin]


def made(name: str) -> np.ndarray:
    plugin, shape, kind, settings = CASES[name]
    views = resolve(plugins.get(plugin).views)(**settings)
    out = [views(sample(plugin, shape), torch.Generator().manual_seed(s), kind) for s in range(4)]
    return torch.cat([view.flatten() for view in out]).numpy()


def here() -> str:
    return f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()}"


@pytest.mark.parametrize("name", list(CASES))
def test_the_fixed_order_gives_what_it_gave(name: str) -> None:
    with np.load(PINNED) as held:
        before, where = held[name], str(held["where"])
    after = made(name)
    if where == here():
        np.testing.assert_array_equal(after, before)
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-3 * np.abs(before).max())


@pytest.mark.parametrize("name", list(CASES))
def test_the_fixed_order_waits_for_no_device(name: str) -> None:
    plugin, shape, kind, settings = CASES[name]
    views, x = resolve(plugins.get(plugin).views)(**settings), sample(plugin, shape)
    with counted() as stops:
        made = views(x, torch.Generator().manual_seed(0), kind)
    assert not stops
    assert torch.isfinite(made).all()


@pytest.mark.parametrize("name", ["slice", "volume", "volume-consistent", "volume-independent"])
def test_a_device_makes_the_view_that_a_processor_makes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It works on all samples and keeps the chosen; noise alone is drawn for more of them."""
    plugin, shape, kind, settings = CASES[name]
    without = {
        "noise": 0.0,
        "kernel": 0.0,
        "blur": 0.4,
        "sharpen": 0.3,
        "gamma": 0.5,
        "cutout": 0.5,
    }
    views, x = resolve(plugins.get(plugin).views)(**settings | without), sample(plugin, shape)
    for seed in range(4):
        on_processor = views(x, torch.Generator().manual_seed(seed), kind)
        with monkeypatch.context() as patch:
            patch.setattr(host, "waits", lambda x: True)
            on_device = views(x, torch.Generator().manual_seed(seed), kind)
        torch.testing.assert_close(on_device, on_processor)


if __name__ == "__main__":
    np.savez_compressed(PINNED, where=here(), **{name: made(name) for name in CASES})
