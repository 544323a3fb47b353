"""Planted leaks, among real digits of invented writers (synthetic persons)."""

from collections.abc import Callable

import numpy as np
import pytest

from medcl.audit.leakage import audit
from medcl.errors import UsageError
from medcl.plugin import Samples
from medcl.run import Run, load_samples

Made = tuple[Samples, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def made(digits_run: Run) -> Made:
    """Samples, sides and pixels, without a leak."""
    samples = load_samples(digits_run.recipe, digits_run.data)
    side = digits_run.split()
    sides = np.array([side[p] for p in samples.patients])
    return samples, sides, samples.read(np.arange(len(samples)))["x"]


def _with(samples: Samples, x: np.ndarray, patients: list[str] | None = None) -> Samples:
    def read(at: np.ndarray) -> dict[str, np.ndarray]:
        return {"x": x[at]}

    return Samples(samples.ids, samples.items, patients or list(samples.patients), read)


def test_a_clean_split_passes(made: Made) -> None:
    samples, sides, x = made
    found = audit(_with(samples, x), sides)
    assert found.passed
    assert found.counts == {"patient": 0, "copy": 0, "near-copy": 0}
    assert found.sentence().startswith("No leak")


def test_a_patient_on_both_sides_is_found(made: Made) -> None:
    samples, sides, x = made
    patients = list(samples.patients)
    moved = int(np.flatnonzero(sides == "test")[0])
    patients[moved] = patients[int(np.flatnonzero(sides == "train")[0])]
    found = audit(_with(samples, x, patients), sides)
    assert found.counts["patient"] == 1
    assert found.leaks[0].test == samples.ids[moved]
    assert not found.passed
    assert "1 patients" in found.sentence()


def _same(image: np.ndarray) -> np.ndarray:
    return image


def _brighter(image: np.ndarray) -> np.ndarray:
    return 0.7 * image + 0.1


def _noisy(image: np.ndarray) -> np.ndarray:
    return image + np.random.default_rng(0).normal(0, 0.01, image.shape).astype(image.dtype)


@pytest.mark.parametrize(
    ("change", "what"), [(_same, "copy"), (_brighter, "near-copy"), (_noisy, "near-copy")]
)
def test_a_picture_under_another_name_is_found(
    made: Made, change: Callable[[np.ndarray], np.ndarray], what: str
) -> None:
    samples, sides, x = made
    x = x.copy()
    source = int(np.flatnonzero(sides == "train")[7])
    target = int(np.flatnonzero(sides == "test")[3])
    x[target] = change(x[source])
    found = audit(_with(samples, x), sides)
    assert found.counts[what] == 1  # type: ignore[index]
    (leak,) = [leak for leak in found.leaks if leak.what == what]
    assert (leak.train, leak.test) == (samples.ids[source], samples.ids[target])
    assert leak.patients[0] != leak.patients[1]
    assert not found.passed


def test_long_samples_are_compared_too() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 1, 20, 30, 30)).astype(np.float32).cumsum(-1)
    x[5] = 2 * x[0] + rng.normal(size=x[0].shape) * 0.05
    names = list("abcdef")
    samples = Samples(names, names, names, lambda at: {"x": x[at]})
    found = audit(samples, ["train"] * 3 + ["test"] * 3)
    assert [(leak.train, leak.test, leak.what) for leak in found.leaks] == [("a", "f", "near-copy")]


def test_copied_bags_are_found() -> None:
    rng = np.random.default_rng(0)
    bags = [rng.normal(size=(n, 4)).astype(np.float32) for n in (3, 1, 5, 2)]
    bags[3] = bags[0].copy()

    def read(at: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "x": np.concatenate([bags[p] for p in at]),
            "bag": np.repeat(np.arange(len(at)), [len(bags[p]) for p in at]),
        }

    names = list("abcd")
    found = audit(Samples(names, names, names, read), ["train", "train", "test", "test"])
    assert [(leak.train, leak.test) for leak in found.leaks] == [("a", "d")]


def test_one_side_alone_is_refused(made: Made) -> None:
    samples, sides, x = made
    with pytest.raises(UsageError, match="training and test"):
        audit(_with(samples, x), np.full(len(sides), "train"))


def test_folds_are_audited_together() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 1, 40)).astype(np.float32)
    x[4] = x[0]
    names = list("abcdef")
    samples = Samples(names, names, names, lambda at: {"x": x[at]})
    together = ["test", "train", "train", "train", "test", "train"]
    apart = ["train", "train", "test", "test", "test", "train"]
    assert audit(samples, together).passed  # both copies are tested: nobody learnt from them
    found = audit(samples, together, apart)
    assert [(leak.train, leak.test) for leak in found.leaks] == [("a", "e")]
    assert (found.train, found.test) == (5, 4)


def test_samples_without_any_content_are_no_copies(made: Made) -> None:
    """Air, or a lead that fell off, looks the same of everybody."""
    samples, sides, x = made
    x = x.copy()
    x[[np.flatnonzero(sides == "train")[0], np.flatnonzero(sides == "test")[0]]] = -1024.0
    assert audit(_with(samples, x), sides).passed
