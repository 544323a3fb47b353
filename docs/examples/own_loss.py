"""A loss alone: two views of a batch through your own network, and NT-Xent on what comes out.

``python own_loss.py``. An objective of `medcl.objectives` is a function of tensors; what belongs to
one patient (``group``) is never a negative of each other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medcl.objectives import nt_xent


def train(x: Tensor, patient: Tensor, steps: int = 200) -> list[float]:
    """Inputs (N, F), and whose each is, (N,) int64 → the loss of every step."""
    network = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, 32))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        rows = torch.randperm(len(x))[:64]
        one, two = (network(x[rows] + 0.1 * torch.randn_like(x[rows])) for _ in range(2))
        loss = nt_xent(one, two, temperature=0.1, group=patient[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    torch.manual_seed(0)
    losses = train(torch.randn(512, 16), torch.arange(512) // 4)
    print(f"loss {losses[0]:.2f} → {losses[-1]:.2f}")
