"""3D crops are drawn anew at every step: a function of (seed, step), with more of the body."""

from __future__ import annotations

import pickle

import numpy as np
import polars as pl
import pytest

from medcl.engine.data import Batches, select
from medcl_ct import placing
from medcl_ct.dataset import dataset


class Held:
    """Two volumes of noise; the body is a quarter of each."""

    def __call__(self, item_id: str) -> dict[str, np.ndarray]:
        random = np.random.default_rng(int(item_id[-1]))
        hu = np.full((20, 40, 40), -1000, np.int16)
        hu[:, :20, :20] = random.integers(0, 1000, (20, 20, 20))
        return {"hu0": hu, "affine0": np.eye(4)}

    def files(self, item_id: str) -> tuple:
        return ()


def batches(seed: int = 0, *, pairs: bool = False, rank: int = 0, world: int = 1) -> Batches:
    items = pl.DataFrame({"id": ["i0", "i1"], "patient": ["p0", "p1"], "group": ["g0", "g1"]})
    samples = dataset(items, Held(), kind="crop", size=(8, 8, 8), crops=4)
    selection = select(samples, {"p0": "train", "p1": "train"})
    size = 4 // world
    return Batches(
        selection, batch_size=size, seed=seed, pairs=pairs, rank=rank, world=world, anew=True
    )


def x(made: Batches, number: int) -> np.ndarray:
    return made[number][1]["x"].numpy()


def test_a_step_is_a_function_of_seed_and_number() -> None:
    assert np.array_equal(x(batches(), 5), x(batches(), 5)), "as a resumed run draws it"
    assert not np.array_equal(x(batches(0), 5), x(batches(1), 5))


def test_no_epoch_repeats_the_boxes_of_another() -> None:
    made = batches()
    seen = {box.tobytes() for number in range(20) for box in x(made, number)}
    assert len(seen) > 50, "of 80 boxes, of which those of air alone are the same"
    assert len(dataset_boxes()) <= 8


def dataset_boxes() -> set[bytes]:
    samples = batches().selection.samples
    return {box.tobytes() for box in samples.read(np.arange(len(samples)))["x"]}


def test_two_ranks_draw_what_one_draws() -> None:
    one = x(batches(), 3)
    two = np.concatenate([x(batches(rank=rank, world=2), 3) for rank in (0, 1)])
    assert np.array_equal(one, two)


def test_boxes_hold_more_of_the_body_than_chance_gives_them() -> None:
    volume = Held()("i0")["hu0"]
    random = np.random.default_rng(0)
    body = {"drawn": 0.0, "chance": 0.0}
    for _ in range(300):
        z, y, left = placing.drawn(volume, (8, 8, 8), -400, random)
        body["drawn"] += (volume[z : z + 8, y : y + 8, left : left + 8] > -400).mean() / 300
        z, y, left = (int(random.integers(0, n - 7)) for n in volume.shape)
        body["chance"] += (volume[z : z + 8, y : y + 8, left : left + 8] > -400).mean() / 300
    assert body["drawn"] > 1.5 * body["chance"]


class Faint:
    """Two volumes of PET at SUV 1 to 3, or of MR that dark: all of the body is below −400."""

    def __call__(self, item_id: str) -> dict[str, np.ndarray]:
        hu = np.full((40, 40, 40), -1000, np.int16)
        hu[15:25, 15:25, 15:25] = np.random.default_rng(0).integers(-780, -500, (10, 10, 10))
        return {"hu0": hu, "affine0": np.eye(4)}

    def files(self, item_id: str) -> tuple:
        return ()


@pytest.mark.parametrize("modality", ["mr", "pet"])
def test_the_body_of_mr_and_pet_is_told_on_their_own_scale(modality: str) -> None:
    items = pl.DataFrame({"id": ["i0"], "patient": ["p0"], "group": ["g0"]})
    positions, seeds = np.zeros(200, np.int64), np.arange(200, dtype=np.uint64)
    shares = {}
    for kind in ("ct", modality):
        samples = dataset(items, Faint(), kind="crop", size=(8, 8, 8), modality=kind)
        assert samples.draw is not None
        shares[kind] = (samples.draw(positions, seeds)["x"] > -800).mean()
    assert shares[modality] > 2 * shares["ct"], "taken for CT, there is no body to look for"


def test_partners_keep_the_places_that_made_them_partners() -> None:
    made = batches(pairs=True)
    assert {box.tobytes() for n in range(6) for box in x(made, n)} <= dataset_boxes()


def test_what_is_drawn_fits_a_loader_process_and_a_part_of_the_samples() -> None:
    samples = batches().selection.samples
    assert samples.draw is not None
    seeds = np.array([3, 4], dtype=np.uint64)
    whole = pickle.loads(pickle.dumps(samples.draw))(np.array([1, 6]), seeds)["x"]
    half = samples.at(np.array([1, 6])).draw(np.array([0, 1]), seeds)["x"]
    assert np.array_equal(whole, half)


@pytest.mark.parametrize("kind", ["slice", "volume", "stack"])
def test_only_crops_are_drawn(kind: str) -> None:
    items = pl.DataFrame({"id": ["i0"], "patient": ["p0"], "group": ["g0"]})
    size = (8, 8) if kind == "slice" else (8, 8, 8)
    assert dataset(items, Held(), kind=kind, size=size).draw is None
