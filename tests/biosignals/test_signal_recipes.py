"""Every recipe of biosignals trains a few steps on real recordings, and its loss falls."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from stops import counted
from torch import Tensor

from medcl import recipe as recipes
from medcl.archive.index import build
from medcl.errors import UsageError
from medcl.methods.contract import State, after_step
from medcl.methods.unicon import scrambled
from medcl.objectives.clip import clip
from medcl.objectives.similarity_reconstruction import similarity_reconstruction
from medcl.plugin import Samples
from medcl.recipe import Recipe
from medcl.registry import resolve
from medcl.run import build_encoder, load_samples
from medcl_biosignals.methods.cross_modal import by_group, clip_of
from medcl_biosignals.methods.curves import Curves, cosines
from medcl_biosignals.methods.similar_snippets import SimilarSnippets, geometric_mask
from medcl_biosignals.plugin import plugin

SMALL = {  # networks that a test can afford
    "resnet1d": {"widths": [8, 16, 32], "blocks": 1, "kernel": 5},
    "mbconv1d": {"widths": [8, 16, 24], "blocks": 1, "expand": 2, "width": 32},
    "efficientnet1d": {"width": 72, "expand": 2},
    "tcn": {"widths": [8, 8, 16, 16]},
    "preact-resnet1d": {"base": 8, "blocks": 6, "width": 32, "dropout": 0.0},
    "sensor-vit": {"width": 32, "depth": 2, "heads": 2, "patch": 32},
    "s4d1d": {"features": 32, "depth": 2},
    "vit1d": {"width": 32, "depth": 2, "heads": 2, "patch": 16},
    "two-towers": {"widths": [8, 16, 32], "width": 64},
}
ECG = ("cpc-ecg", "forecast", "hybrid-ecg", "i-jepa-ecg", "lejepa-ecg", "lsm2", "mae-1d",
       "order-aware", "quantised-1d", "simclr-ecg", "snippets", "spark-1d", "unicon", "visreg-ecg",
       "wearable-ecg", "ctvis-ecg", "debcse-ecg")  # fmt: skip
STEPS, BATCH = 16, 16


def small(name: str) -> Recipe:
    full = recipes.load(name)
    encoder = {
        "name": full.encoder.name,
        "channels": full.encoder.arguments["channels"],
        **SMALL[full.encoder.name],
    }
    return recipes.parse({**full.model_dump(), "encoder": encoder})


@pytest.fixture(scope="module")
def index(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("recipes")
    (out / "key").write_text("recipes in tests: hides nothing")
    archive = out / "archive"
    archive.mkdir()
    for name in ("101", "106", "114", "118", "207", "208"):
        for file in sample.glob(f"{name}.*"):
            shutil.copy(file, archive / file.name)
    build(archive, out / "index", plugin, key_file=out / "key")
    return out / "index"


@pytest.fixture(scope="module")
def pulses(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real recordings with ECG and PPG: BIDMC, CinC 2015, MIMIC."""
    out = tmp_path_factory.mktemp("pulses")
    (out / "key").write_text("recipes in tests: hides nothing")
    archive = out / "archive"
    archive.mkdir()
    shutil.copy(shared_data / "ppg/bidmc_01_Signals.csv", archive / "bidmc_01_Signals.csv")
    for stem in ("a103l", "03700181"):
        for file in (shared_data / "ecg/other").glob(f"{stem}.*"):
            shutil.copy(file, archive / file.name)
    build(archive, out / "index", plugin, key_file=out / "key")
    return out / "index"


def losses(recipe: Recipe, samples: Samples, steps: int = STEPS) -> tuple[list[float], object]:
    """Train on batches of windows, partners from the same patient, as the engine does."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    method = recipes.method_factory(recipe)(build_encoder(recipe, 0), **recipe.method.arguments)
    augment = resolve(plugin.views)(**recipe.views)
    generator = torch.Generator().manual_seed(0)
    _, patient = np.unique(np.asarray(samples.patients), return_inverse=True)
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    found = []
    for step in range(steps):
        at = rng.permutation(len(samples))[:BATCH]
        partner = np.array([rng.choice(np.flatnonzero(patient == patient[i])) for i in at])
        sources = [torch.from_numpy(samples.read(rows)["x"]) for rows in (at, partner)]
        views = [augment(sources[view.source], generator, view.kind) for view in method.views]
        batch = {"patient": torch.from_numpy(patient[at])}
        read = samples.read(at)
        if "table" in read:
            batch["table"] = torch.from_numpy(read["table"])
        result = method.step(views, batch, State(step, steps))
        assert result["embedding"].shape == (len(at), method.encoder.width)
        assert not result["embedding"].requires_grad
        optimizer.zero_grad()
        result["loss"].backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())
        optimizer.step()
        after_step(method, State(step, steps))
        found.append(result["loss"].item())
    return found, method


def falls(found: list[float]) -> None:
    assert np.isfinite(found).all()
    first, last = np.mean(found[:5]), np.mean(found[-5:])
    assert last < first - 0.02 * abs(first), (first, last)


@pytest.mark.slow
@pytest.mark.parametrize("name", ECG)
def test_it_trains_on_real_ecg(name: str, index: Path) -> None:
    recipe = small(name)
    falls(losses(recipe, load_samples(recipe, index))[0])


@pytest.mark.slow
def test_ecg_and_ppg_of_real_monitors_find_each_other(pulses: Path) -> None:
    recipe = small("cross-modal")
    samples = load_samples(recipe, pulses)
    assert len(set(samples.patients)) == 3
    x = samples.read(np.arange(len(samples)))["x"]
    assert (np.abs(x).max(axis=-1) > 0).all()  # both sensors, in every window
    falls(losses(recipe, samples, 40)[0])


@pytest.mark.slow
def test_ecg_with_a_clinical_table(sample: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("recipes in tests: hides nothing")
    synthetic = ["key,sex,age", "101,F,75", "106,F,24", "114,F,", "118,M,69", "207,,89", "208,F,23"]
    (tmp_path / "synthetic.csv").write_text("\n".join(synthetic) + "\n")
    archive = tmp_path / "archive"
    archive.mkdir()
    for line in synthetic[1:]:
        for file in sample.glob(f"{line.split(',')[0]}.*"):
            shutil.copy(file, archive / file.name)
    key, table = tmp_path / "key", tmp_path / "synthetic.csv"
    build(archive, tmp_path / "index", plugin, key_file=key, table=table)
    recipe = small("tip-ecg")
    samples = load_samples(recipe, tmp_path / "index")
    rows = samples.read(np.arange(len(samples)))["table"]
    assert rows.shape == (len(samples), 2)
    assert set(np.unique(rows[:, 0])) == {-1.0, 0.0, 1.0}
    assert np.isnan(rows[:, 1]).any()
    assert (rows[:, 1] == np.float32(0.75)).any()  # 75 years
    falls(losses(recipe, samples, 30)[0])


@pytest.fixture(scope="module")
def ppg(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real PPG of three people: BIDMC, and heartpy's, whose column is called a heart rate."""
    out = tmp_path_factory.mktemp("ppg")
    archive = out / "archive"
    archive.mkdir()
    (out / "key").write_text("recipes in tests: hides nothing")
    for name in ("bidmc_01_Signals.csv", "heartpy_data2.csv", "heartpy_data3.csv"):
        shutil.copy(shared_data / "ppg" / name, archive / name)
    said = {"files": {"heartpy*": {"columns": {"hr": "PPG"}}}}
    build(archive, out / "index", plugin, key_file=out / "key", reader=said)
    return out / "index"


@pytest.mark.slow
def test_wearable_ppg_trains_on_real_ppg(ppg: Path) -> None:
    recipe = small("wearable-ppg")
    shorter = {"seconds": 15.0, "stride": 5.0}
    recipe = recipe.model_copy(update={"dataset": recipe.dataset | shorter})
    falls(losses(recipe, load_samples(recipe, ppg))[0])


@pytest.mark.long
@pytest.mark.slow
def test_papagei_s_sorts_real_ppg_by_its_shape(ppg: Path) -> None:
    """Batches of 16 windows are too few for the bins, so it trains on all of them at once."""
    recipe = small("papagei-s")
    recipe = recipe.model_copy(update={"dataset": recipe.dataset | {"stride": 5.0}})
    samples = load_samples(recipe, ppg)
    x = torch.from_numpy(samples.read(np.arange(len(samples)))["x"])
    _, method = losses(recipe, samples, 0)
    optimizer = torch.optim.Adam(method.parameters(), 1e-3)
    contrasts = []
    for _ in range(40):
        result = method.step([x, x], {"patient": torch.zeros(len(x)).long()}, State())
        assert result["bins"] >= 6  # of eight: some bins of real pulses have no window
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
        contrasts.append(result["contrast"].item())
    assert np.mean(contrasts[-5:]) < np.mean(contrasts[:5]) - 0.1, contrasts


def test_papagei_s_and_lsm2_say_what_was_read() -> None:
    papagei, lsm2 = recipes.load("papagei-s"), recipes.load("lsm2")
    method = papagei.method.arguments
    assert (method["alpha"], method["bins"], method["experts"]) == (0.6, 8, 3)
    assert (method["fs"], papagei.prepare["fs"], papagei.dataset["seconds"]) == (125, 125, 10)
    assert (papagei.encoder.arguments["channels"], method["mask_same_patient"]) == (1, False)
    assert (papagei.optimizer.name, papagei.optimizer.lr) == ("adam", 1e-4)
    drawn = lsm2.method.arguments
    assert (drawn["patches"], drawn["spans"], drawn["sensors"]) == (0.8, 0.5, 0.5)
    assert (lsm2.dataset["missing"], drawn["normalise"]) == ("nan", False)


def test_the_published_wearable_recipes_say_what_the_paper_says() -> None:
    ppg, ecg = (recipes.load(f"wearable-{kind}") for kind in ("ppg", "ecg"))
    for recipe in (ppg, ecg):
        method, encoder = recipe.method.arguments, recipe.encoder
        assert (method["temperature"], method["momentum"], method["koleo"]) == (0.04, 0.99, 0.1)
        assert (method["hidden"], method["out"]) == (1024, 128)
        assert (method["norm"], method["dropout"]) == (False, 0.1)
        assert (encoder.name, encoder.arguments["width"]) == ("efficientnet1d", 256)
        assert recipe.trainer.batch_size == 256
        taken = recipe.optimizer
        assert (taken.name, taken.lr, taken.weight_decay) == ("adam", 1e-3, 1e-5)
        assert (taken.warmup, taken.schedule) == (0.0, "constant")
        strengths = {step["name"]: dict(step) for step in recipe.views["steps"]}
        assert list(strengths["cutout"]["share"]) == [0.3, 0.5]
        assert (strengths["magnitude_warp"]["level"], strengths["noise"]["level"]) == (0.2, 0.1)
    on = [(step["name"], step["p"]) for step in ppg.views["steps"]]
    assert on == [("cutout", 0.4), ("magnitude_warp", 0.25), ("time_warp", 0.15), ("noise", 0.25),
                  ("channel_permute", 0.25)]  # fmt: skip
    on = [(step["name"], step["p"]) for step in ecg.views["steps"]]
    assert on == [("cutout", 0.8), ("magnitude_warp", 0.5), ("time_warp", 0.3), ("noise", 0.5)]
    assert (ppg.prepare["fs"], ppg.dataset["seconds"], ppg.encoder.arguments["channels"]) == (
        64,
        60,
        4,
    )
    assert (ecg.prepare["fs"], ecg.dataset["seconds"], ecg.encoder.arguments["channels"]) == (
        128,
        30,
        1,
    )


def test_cosines_are_orthonormal_and_a_decoder_has_any_length() -> None:
    basis = cosines(16, 100)
    torch.testing.assert_close(basis @ basis.T, torch.eye(16), atol=1e-5, rtol=0)
    decoder = Curves(8, 2, 16)
    h = torch.randn(3, 8)
    assert decoder(h, 100).shape == (3, 2, 100)
    torch.testing.assert_close(
        decoder(h, 400)[..., 2::4], decoder(h, 100), atol=0.1, rtol=0.1
    )  # the same curve, sampled more densely


def test_mixing_before_the_affine_decoder_is_the_objective(index: Path) -> None:
    torch.manual_seed(0)
    recipe = small("snippets")
    method = SimilarSnippets(build_encoder(recipe, 0), channels=2)
    z, h = torch.randn(6, 4), torch.randn(6, method.encoder.width)
    target = torch.randn(6, 2, 50)
    rebuilt = method._rebuilt(z, h, 50, State().ranks)
    want = similarity_reconstruction(z, method.decoder(h, 50), target, temperature=0.2)
    torch.testing.assert_close((rebuilt - target).square().mean(), want)


def test_missing_channels_are_neither_shown_nor_asked_for() -> None:
    torch.manual_seed(0)
    recipe = small("snippets")
    method = SimilarSnippets(build_encoder(recipe, 0), channels=2).eval()
    x = torch.randn(8, 2, 200)
    x[::2, 1] = torch.nan
    zero = x.nan_to_num()
    results = []
    for view in (x, zero):
        torch.manual_seed(1)
        results.append(method.step([view], {"patient": torch.arange(8)}, State())["loss"])
    assert results[0].isfinite()
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize(("share", "span"), [(0.4, 0.05), (0.9, 0.02), (0.5, 0.01), (0.15, 0.3)])
def test_geometric_masks_are_those_of_the_chain_step_by_step(share: float, span: float) -> None:
    x = torch.zeros(5, 3, 200)
    torch.manual_seed(0)
    mask = geometric_mask(x, share, span)
    torch.manual_seed(0)
    draws, state = torch.rand(x.shape), torch.rand(5, 3) < share
    leave = 1 / max(span * 200, 1)
    enter = min(leave * share / (1 - share), 1.0)
    for t in range(200):
        assert torch.equal(mask[..., t], state)
        state = torch.where(state, draws[..., t] >= leave, draws[..., t] < enter)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ECG, "cross-modal"])
def test_no_step_waits_for_a_device(name: str) -> None:
    recipe = small(name)
    torch.manual_seed(0)
    method = recipes.method_factory(recipe)(build_encoder(recipe, 0), **recipe.method.arguments)
    x = torch.randn(8, recipe.encoder.arguments["channels"], 640)
    batch = {"patient": torch.arange(8) // 2}
    batch["table"] = torch.randn(8, 2)
    batch["table"][:, 0] = torch.arange(8) % 2
    augment = resolve(plugin.views)(**recipe.views)
    for number in range(2):
        with counted() as stops:
            views = [augment(x, torch.Generator().manual_seed(n), view.kind)
                     for n, view in enumerate(method.views)]  # fmt: skip
            method.step(views, batch, State(number, 10))["loss"].backward()
            after_step(method, State(number, 10))
        assert not stops


def test_geometric_masks_have_their_share_and_span() -> None:
    torch.manual_seed(0)
    mask = geometric_mask(torch.zeros(64, 2, 1000), 0.4, 0.05)
    assert mask.float().mean().item() == pytest.approx(0.4, abs=0.03)
    begins = (mask[..., 1:] & ~mask[..., :-1]).sum()
    assert (mask.sum() / begins).item() == pytest.approx(50, rel=0.2)
    assert (mask[:, 0] != mask[:, 1]).any()


def test_scrambled_windows_hold_the_same_samples_elsewhere() -> None:
    x = torch.randn(16, 2, 103)
    y = scrambled(x, 5)
    torch.testing.assert_close(y.sort(dim=-1).values, x.sort(dim=-1).values)
    assert ((x[..., :100] - y[..., :100]).abs().amax(dim=(1, 2)) > 0).all()


def test_recordings_are_means_of_unit_vectors() -> None:
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
    valid = torch.tensor([True, True, True, False, False])
    pooled, filled = by_group(z, torch.tensor([7, 7, 3, 7, 9]), valid)
    half = 2**-0.5
    expected = torch.tensor([[1.0, 0.0], [half, half], [0, 0], [0, 0], [0, 0]])
    torch.testing.assert_close(pooled, expected)
    assert filled.tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("grouped", [False, True])
def test_valid_rows_are_contrasted_as_clip_does(grouped: bool) -> None:
    random = torch.Generator().manual_seed(0)
    a, b = (torch.randn(8, 4, generator=random).requires_grad_() for _ in range(2))
    log_scale, group = torch.tensor(2.0, requires_grad=True), torch.tensor([5, 5, 9, 2, 2, 2, 9, 7])
    valid = torch.tensor([True, True, False, True, True, True, False, True])
    unit = [torch.nn.functional.normalize(x, dim=1) for x in (a, b)]
    loss = clip_of(
        *unit, log_scale, valid, torch.arange(len(valid)), group=group if grouped else None
    )
    kept = group[valid] if grouped else None
    expected = clip(a[valid], b[valid], log_scale, group=kept)
    torch.testing.assert_close(loss, expected)
    ours = torch.autograd.grad(loss, (a, b, log_scale))
    for x, y in zip(ours, torch.autograd.grad(expected, (a, b, log_scale)), strict=True):
        torch.testing.assert_close(x, y)


def test_two_towers_are_needed_and_do_not_see_each_other() -> None:
    recipe = small("cross-modal")
    encoder = build_encoder(recipe, 0).eval()
    x = torch.randn(4, 2, 300)
    other = x.clone()
    other[:, 1] = 0
    a, _ = encoder.both(x)
    torch.testing.assert_close(encoder.both(other)[0], a)
    assert encoder.present(other).tolist() == [False] * 4
    with pytest.raises(UsageError, match="two-towers"):
        recipes.method_factory(recipe)(build_encoder(small("snippets"), 0))


def test_quantised_codes_are_told_apart(index: Path) -> None:
    recipe = small("quantised-1d")
    _, method = losses(recipe, load_samples(recipe, index), 5)
    patches = torch.randn(4, 10, 32)
    method.quantiser.eval()
    vectors, codes, soft = method.quantiser(patches, 1.0)
    again = method.quantiser(patches, 1.0)
    assert vectors.shape == (4, 10, 64)
    assert torch.equal(codes, again[1])
    torch.testing.assert_close(soft.sum(-1), torch.ones(4, 10, 2))
    same: Tensor = (codes[0, 0] == codes).all(-1)
    torch.testing.assert_close(vectors[same], vectors[0, :1].expand_as(vectors[same]))
