import pytest
import torch

from medcl.errors import UsageError
from medcl.methods.batch import class_labels, number_labels, required
from medcl.methods.contract import State
from medcl.methods.schedule import between, fade

PATIENT = {"patient": torch.arange(4)}


def test_codes_missing_as_minus_one_or_nan():
    assert class_labels(torch.tensor([2, -1, 0, -7])).tolist() == [2, -1, 0, -1]
    floats = torch.tensor([[2.0, torch.nan], [0.0, -1.0]])
    assert class_labels(floats).tolist() == [[2, -1], [0, -1]]
    assert class_labels(floats).dtype == torch.int64


def test_numbers_missing_as_nan_or_among_integers_as_minus_one():
    ages = number_labels(torch.tensor([40, -1, 0]))
    assert ages.isnan().tolist() == [False, True, False]
    scores = torch.tensor([-1.0, torch.nan])
    assert number_labels(scores) is scores  # a z-score may be −1


def test_what_is_required_and_absent_is_named():
    with pytest.raises(UsageError, match="Method 'tip' needs 'table'.*gives patient"):
        required(PATIENT, "table", "tip")


@pytest.mark.parametrize(
    ("curve", "half", "quarter"),
    [
        ("linear", 0.5, 0.75),
        ("parabolic", 0.75, 0.9375),
        ("cosine", 0.5, 0.8535534),
        ("step", 0.0, 1.0),
    ],
)
def test_curves(curve, half, quarter):
    assert fade(curve, State(0, 100)) == 1.0
    assert fade(curve, State(25, 100)) == pytest.approx(quarter)
    assert fade(curve, State(50, 100)) == pytest.approx(half)
    assert fade(curve, State(100, 100)) == pytest.approx(0.0)
    assert fade(curve, State(900, 100)) == pytest.approx(0.0)
    assert between((0.2, 1.0), curve, State(50, 100)) == pytest.approx(1.0 - 0.8 * half)
