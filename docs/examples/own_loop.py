"""A method in a loop of your own: SimCLR on ECG windows, with a torch ``DataLoader``.

``python own_loop.py``. Any method of `medcl.methods` can replace SimCLR, any module
(B, ...) → (B, width) with an int ``width`` the encoder, and any function the views.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from medcl.methods import SimCLR
from medcl.methods.contract import State, after_step
from medcl_biosignals.encoders.resnet import resnet1d
from medcl_biosignals.views import views


def pretrain(x: Tensor, patient: Tensor, epochs: int = 5, batch_size: int = 32) -> nn.Module:
    """Windows (N, C, T) at 100 Hz and their patients (N,) int64 → the trained encoder."""
    method = SimCLR(resnet1d(channels=x.shape[1], width=64))
    augment, random = views(fs=100.0), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-3)
    loader = DataLoader(TensorDataset(x, patient), batch_size, shuffle=True, drop_last=True)
    for step, (windows, patients) in enumerate(batch for _ in range(epochs) for batch in loader):
        state = State(step, epochs * len(loader))
        augmented = [augment(windows, random, view.kind) for view in method.views]
        loss = method.step(augmented, {"patient": patients}, state)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after_step(method, state)  # momentum copies, queues, prototypes
    return method.encoder.eval()


if __name__ == "__main__":
    torch.manual_seed(0)
    windows, patients = torch.randn(256, 2, 500), torch.arange(256) // 8
    encoder = pretrain(windows, patients)
    with torch.no_grad():
        print(encoder(windows).shape)
