"""How regular a stack of slices is: the bounds, without any real data."""

from __future__ import annotations

import numpy as np
import pytest

from medcl_ct.stacking import regularity

AXIAL = np.array([1.0, 0, 0, 0, 1, 0])
STEP = 5.0


def stack(*steps: float) -> np.ndarray:
    """Positions (N, 3) of slices so many steps of 5 mm apart."""
    heights = np.concatenate([[0.0], np.cumsum(steps)]) * STEP
    return np.stack([np.zeros_like(heights), np.zeros_like(heights), heights], axis=1)


@pytest.mark.parametrize(
    ("step", "finding"),
    [
        (1.0, None),
        (1.005, None),
        (0.995, None),
        (1.02, "uneven-spacing"),
        (0.98, "uneven-spacing"),
        (1.08, "uneven-spacing"),
        (0.92, "uneven-spacing"),
        (1.12, "non-uniform-spacing"),  # over a tenth, far below a third
        (0.88, "non-uniform-spacing"),
        (1.25, "non-uniform-spacing"),
        (1.4, "non-uniform-spacing"),
        (0.5, "non-uniform-spacing"),
        (2.0, "missing-slices"),
        (2.05, "missing-slices"),
        (3.0, "missing-slices"),
        (1.85, "non-uniform-spacing"),  # no whole number of slices is missing
        (2.2, "non-uniform-spacing"),
    ],
)
@pytest.mark.parametrize("at", [0, 4, 9])
def test_one_step_of_another_length_has_its_name(step: float, finding: str | None, at: int) -> None:
    steps = [1.0] * 10
    steps[at] = step
    found = regularity(stack(*steps), AXIAL)
    assert found.spacing == pytest.approx(STEP)
    assert found.findings == (() if finding is None else (finding,))


def test_one_gap_among_others_that_are_none_is_not_missing_slices() -> None:
    found = regularity(stack(1, 1, 1, 2, 1, 1, 1.3, 1, 1), AXIAL)
    assert found.findings == ("non-uniform-spacing",)


@pytest.mark.parametrize(("step", "cut"), [(1.08, ()), (1.12, (5,)), (0.88, (5,))])
def test_a_stack_is_cut_where_its_step_changes_by_a_tenth(step: float, cut: tuple) -> None:
    found = regularity(stack(*[1.0] * 4, *[step] * 4), AXIAL)
    assert found.steps == cut
