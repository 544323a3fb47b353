"""AIM: what is inherited, what is drawn, what the encoder sees, and what the loss asks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medcl.archive.index import build
from medcl.errors import UsageError
from medcl.methods.contract import State
from medcl_biosignals.encoders.sensors import sensor_vit
from medcl_biosignals.methods.aim import AIM, visible_first
from medcl_biosignals.plugin import plugin

PATCH, BATCH = 8, {"patient": torch.arange(6)}


def method(**settings: object) -> AIM:
    torch.manual_seed(0)
    encoder = sensor_vit(patch=PATCH, width=16, depth=2, heads=2)
    return AIM(encoder, width=16, depth=1, heads=2, **settings)  # type: ignore[arg-type]


def gappy(seed: int = 1) -> Tensor:
    """(6, 3, 80): an absent channel as zeros, one as NaN, a gap of both kinds, a whole window."""
    x = torch.randn(6, 3, 80, generator=torch.Generator().manual_seed(seed))
    x[0, 1] = 0.0
    x[1, 2] = torch.nan
    x[2, 0, 20:43] = torch.nan
    x[3, :, 16:40] = -0.7  # a gap of a scaled window
    x[4, :2] = torch.nan
    return x


def at(grid: tuple[int, int], channel: int, first: int, last: int) -> set[int]:
    return {channel * grid[1] + n for n in range(first, last)}


def test_missing_is_what_holds_a_nan_or_does_not_move() -> None:
    encoder, x = method().encoder, gappy()
    grid = (3, 10)
    assert encoder.grid(x) == grid
    want = [
        at(grid, 1, 0, 10),
        at(grid, 2, 0, 10),
        at(grid, 0, 2, 6),  # samples 20 to 42: of the third patch to the sixth
        {n for channel in range(3) for n in at(grid, channel, 2, 5)},
        at(grid, 0, 0, 10) | at(grid, 1, 0, 10),
        set(),
    ]
    found = [set(row.nonzero()[:, 0].tolist()) for row in encoder.missing(x)]
    assert found == want
    assert torch.equal(encoder.patches(x)[5, 10], x[5, 1, :PATCH])


def test_what_is_missing_changes_no_embedding() -> None:
    encoder, x = method().encoder.eval(), gappy()
    filled = x.clone()
    filled[1, 2] = 3.0  # another constant
    with torch.no_grad():
        torch.testing.assert_close(encoder(filled), encoder(x))
        torch.testing.assert_close(encoder(x[4:5, 2:]).shape, torch.Size([1, 16]))
        nothing = encoder(torch.full((2, 3, 80), torch.nan))
        assert (nothing == 0).all()
        alone = x[5:, :2]
        torch.testing.assert_close(
            encoder(torch.cat([alone, torch.zeros(1, 1, 80)], 1)), encoder(alone)
        )


def test_a_drawn_mask_is_one_of_three_kinds() -> None:
    torch.manual_seed(0)
    masks = method().drawn(300, (4, 10), torch.device("cpu")).unflatten(1, (4, 10))
    kinds = {"spans": 0, "sensors": 0, "patches": 0}
    for mask in masks:
        if (mask == mask[:1]).all():
            kinds["spans"] += 1
            assert mask[0].sum() == 5
        elif (mask == mask[:, :1]).all():
            kinds["sensors"] += 1
            assert mask[:, 0].sum() == 2
        else:
            kinds["patches"] += 1
            assert mask.sum() == 32
    assert min(kinds.values()) > 70
    single = method().drawn(50, (1, 10), torch.device("cpu"))
    assert set(single.sum(1).tolist()) == {5, 8}  # never the only channel as a whole


def test_the_loss_is_the_error_on_what_is_hidden_and_there(monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = method(), gappy()
    artificial = torch.rand(6, 30, generator=torch.Generator().manual_seed(2)) < 0.6
    monkeypatch.setattr(made, "drawn", lambda *_: artificial)
    guesses: list[Tensor] = []
    made.decoder.register_forward_hook(lambda *call: guesses.append(call[2].detach()))
    got = made.step([x], BATCH, State())
    missing, errors = made.encoder.missing(x), []
    for b in range(6):
        for n in range(30):
            if artificial[b, n] and not missing[b, n]:
                channel, patch = divmod(n, 10)
                true = x[b, channel, patch * PATCH : (patch + 1) * PATCH]
                errors.append((guesses[0][b, n] - true).square().mean())
    assert got["loss"].item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)
    assert got["missing"].item() == pytest.approx(missing.float().mean().item())


def test_the_encoder_sees_neither_mask_and_the_decoder_knows_no_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, x = method().eval(), gappy()
    artificial = torch.rand(6, 30, generator=torch.Generator().manual_seed(2)) < 0.6
    monkeypatch.setattr(made, "drawn", lambda *_: artificial)
    first = made.step([x], BATCH, State())
    hidden = artificial.unflatten(1, (3, 10)).repeat_interleave(PATCH, dim=2)
    other = torch.where(hidden, x + torch.randn_like(x), x)
    second = made.step([other], BATCH, State())
    torch.testing.assert_close(first["embedding"], second["embedding"])
    assert first["loss"] != second["loss"]


def test_dropping_tokens_only_saves_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention leaves the hidden ones out, so keeping them all gives the same."""
    made, x = method().eval(), gappy()
    artificial = torch.rand(6, 30, generator=torch.Generator().manual_seed(2)) < 0.6
    monkeypatch.setattr(made, "drawn", lambda *_: artificial)
    dropped = made.step([x], BATCH, State())
    every = torch.arange(30).expand(6, -1)
    monkeypatch.setattr("medcl_biosignals.methods.aim.visible_first", lambda _: every)
    kept = made.step([x], BATCH, State())
    for key in ("loss", "embedding"):
        torch.testing.assert_close(dropped[key], kept[key], atol=1e-5, rtol=1e-4)


def test_as_many_tokens_stay_as_the_fullest_window_has() -> None:
    hidden = torch.tensor([[True, False, True, False], [True, True, True, False]])
    assert visible_first(hidden).tolist() == [[1, 3], [3, 0]]
    assert visible_first(torch.ones(2, 4, dtype=torch.bool)).shape == (2, 1)


def test_windows_of_which_nothing_is_there_cost_nothing() -> None:
    made = method()
    x = torch.full((6, 3, 80), torch.nan)
    got = made.step([x], BATCH, State())
    assert got["loss"] == 0
    x[0] = torch.randn(3, 80)
    got = made.step([x], BATCH, State())
    assert got["loss"] > 0
    got["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


def test_another_encoder_is_refused() -> None:
    with pytest.raises(UsageError, match="sensor-vit"):
        AIM(torch.nn.Linear(2, 2))


def test_a_dataset_says_what_is_missing(sample: Path, tmp_path: Path) -> None:
    """A record with a gap in one lead and without another: NaN there, and the rest is scaled."""
    from medcl import recipe as recipes
    from medcl.run import load_samples

    archive = tmp_path / "archive"
    archive.mkdir()
    (tmp_path / "key").write_text("aim in tests: hides nothing")
    t = np.arange(6000) / 100
    rows = np.sin(2 * np.pi * 1.3 * t) + 0.3 * np.sin(2 * np.pi * 7 * t)
    text = [f"{v:.4f}" for v in rows]
    gap = [v if not 2000 <= n < 2600 else "" for n, v in enumerate(text)]
    lines = [f"{n / 100:.2f},{a},{b}" for n, (a, b) in enumerate(zip(text, gap, strict=True))]
    (archive / "p1.csv").write_text("time,II,V1\n" + "\n".join(lines) + "\n")
    build(archive, tmp_path / "index", plugin, key_file=tmp_path / "key")
    recipe = recipes.load("lsm2")
    recipe = recipe.model_copy(update={"prepare": {**recipe.prepare, "leads": ["II", "V1", "V6"]}})
    samples = load_samples(recipe, tmp_path / "index")
    read = samples.read(np.arange(len(samples)))["x"]
    starts = samples.where(np.arange(len(samples)))["start"]
    assert read.shape[1:] == (3, 1024)
    assert np.isnan(read[:, 2]).all()
    assert not np.isnan(read[:, 0]).any()
    for x, start in zip(read[:, 1], starts, strict=True):
        n = np.arange(1024) + round(start * 100)
        there = (n < 2000) | (n >= 2600)
        assert (np.isnan(x) == ~there)[np.abs(n - 2000) > 2].mean() > 0.99
        if there.any():
            assert np.nanmean(x) == pytest.approx(0, abs=1e-5)
            assert np.nanstd(x) == pytest.approx(1, abs=1e-4)
    plain = recipe.model_copy(update={"dataset": {**recipe.dataset, "missing": "zero"}})
    assert not np.isnan(load_samples(plain, tmp_path / "index").read(np.arange(3))["x"]).any()
