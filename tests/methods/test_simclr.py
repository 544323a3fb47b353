"""SimCLR's virtual adversarial view: the change that matters most, and nothing else of a step."""

from __future__ import annotations

import digits
import torch

from medcl.methods.contract import State
from medcl.methods.simclr import SimCLR
from medcl.objectives.virtual_adversarial import virtual_adversarial


def test_the_adversarial_view_changes_more_than_noise_and_statistics_stay():
    torch.manual_seed(0)
    plain = SimCLR(digits.cnn(), hidden=16, out=8)
    method = SimCLR(digits.cnn(), hidden=16, out=8, adversarial=2.0, radius=0.5)
    method.load_state_dict(plain.state_dict())
    x, batch = digits.draw(16)
    views = [x, x.flip(3)]
    torch.manual_seed(1)
    found = method.step(views, batch, State())
    torch.testing.assert_close(
        found["loss"], plain.step(views, batch, State())["loss"] + 2 * found["adversarial"]
    )
    for key, value in plain.state_dict().items():  # batch statistics of the plain step alone
        torch.testing.assert_close(method.state_dict()[key], value)
    assert method.training
    assert method.encoder.training
    method.eval()
    noise = torch.randn_like(x)
    noise = 0.5 * noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    with torch.no_grad():
        clean, moved = (method.projector(method.encoder(v)) / 0.1 for v in (x, x + noise))
    assert found["adversarial"] > 2 * virtual_adversarial(clean, moved)
    found["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())
