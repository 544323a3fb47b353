"""LeJEPA and VISReg: the distance to the global views' centre, and one regulariser, by hand."""

from __future__ import annotations

import digits
import pytest
import torch

from medcl.methods.contract import State, View
from medcl.methods.lejepa import LeJEPA, VISReg, directions
from medcl.objectives.sigreg import sigreg
from medcl.objectives.visreg import visreg


@pytest.mark.parametrize(("kind", "regulariser"), [(LeJEPA, sigreg), (VISReg, visreg)])
def test_the_loss_is_agreement_and_a_regulariser(kind, regulariser):
    torch.manual_seed(0)
    method = kind(digits.cnn(), views=3, local=1, weight=0.3, directions=5, hidden=16, out=8)
    assert method.views == (View(), View(), View(), View("local"))
    x, batch = digits.draw(12)
    views = [digits.augment(x, view) for view in method.views]
    method.eval()  # running statistics: views may be encoded one by one
    result = method.step(views, batch, State(step=7))
    z = torch.stack([method.projector(method.encoder(view)) for view in views])
    centre = (z[0] + z[1] + z[2]) / 3
    apart = torch.stack([(each - centre).square().mean() for each in z]).mean()
    axes = directions(z, 5, 7)
    torch.testing.assert_close(axes.norm(dim=0), torch.ones(5))
    expected = 0.7 * apart + 0.3 * regulariser(z, axes)
    torch.testing.assert_close(result["loss"], expected)


def test_directions_differ_from_step_to_step_and_are_the_same_at_one():
    z = torch.zeros(1, 2, 8)
    assert torch.equal(directions(z, 4, 3), directions(z, 4, 3))
    assert not torch.equal(directions(z, 4, 3), directions(z, 4, 4))
