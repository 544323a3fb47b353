"""Contrastive domain adaptation on batches that hold little of one of the sites."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from medcl.methods.contract import State
from medcl.methods.site_adapt import SiteAdapt


class Flat(nn.Module):
    """The smallest encoder."""

    width = 4

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


@pytest.mark.parametrize("site", [[-1, -1, -1, -1], [0, -1, -1, -1], [0, 0, 0, 1], [1, 1, 1, 1]])
def test_a_batch_of_unknown_or_few_sites_has_a_loss(site: list[int]) -> None:
    """Where most sites are unknown, some batch holds none: NaN would spoil every weight."""
    torch.manual_seed(0)
    method = SiteAdapt(Flat(), hidden=8, out=4)
    batch = {"label": torch.tensor([0, 1, 0, -1]), "site": torch.tensor(site)}
    loss = method.step([torch.randn(4, 3), torch.randn(4, 3)], batch, State(0, 10))["loss"]
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())
