"""CPC against its formula, step by step, and the encoders that it refuses."""

from __future__ import annotations

import digits
import pytest
import torch

from medcl.errors import UsageError
from medcl.methods.contract import State
from medcl.methods.cpc import CPC


def test_the_loss_is_the_papers_over_all_horizons() -> None:
    torch.manual_seed(0)
    method = CPC(digits.Rows(), ahead=(1, 3), temperature=0.5)
    x, batch = digits.draw(4)
    loss = method.step([x], batch, State())["loss"]
    z = method.encoder.local(x)
    c = method.encoder.context(z)
    found = []
    for k, head in zip((1, 3), method.heads, strict=True):
        rows = []
        for b in range(4):
            for t in range(8 - k):
                s = torch.stack([head(c[b, t]) @ z[b, u] for u in range(8)]) / 0.5
                rows.append(-s.log_softmax(0)[t + k])
        found.append(torch.stack(rows).mean())
    torch.testing.assert_close(loss, torch.stack(found).mean())


def test_an_encoder_that_sees_the_future_or_has_no_steps_is_refused() -> None:
    both = digits.Rows()
    both.causal = False  # type: ignore[misc]
    with pytest.raises(UsageError, match=r"encoder\.causal"):
        CPC(both)
    with pytest.raises(UsageError, match="lacks local, context"):
        CPC(digits.cnn())
