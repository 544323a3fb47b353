"""Colours of stains, for whole batches on any device: HED, Macenko and Reinhard.

Images are (B, 3, H, W) RGB in 0 … 1; optical density is −ln of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST = 1 / 255
# Ruifrok 2001: how haematoxylin, eosin and DAB absorb red, green and blue.
_HED = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))
# Reinhard 2001: RGB → LMS, and log LMS → lαβ.
_LMS = ((0.3811, 0.5783, 0.0402), (0.1967, 0.7244, 0.0782), (0.0241, 0.1288, 0.8444))
_LAB = (
    (0.57735027, 0.57735027, 0.57735027),
    (0.40824829, 0.40824829, -0.81649658),
    (0.70710678, -0.70710678, 0.0),
)


def density(x: Tensor) -> Tensor:
    """RGB → optical density."""
    return -x.clamp(min=_LEAST).log()


def light(od: Tensor) -> Tensor:
    """Optical density → RGB."""
    return (-od).exp().clamp(0, 1)


def _mix(matrix: Tensor, x: Tensor) -> Tensor:
    """(3, 3) times the channels of (B, 3, H, W)."""
    return torch.einsum("kc,bchw->bkhw", matrix, x)


def hed_matrix(like: Tensor) -> Tensor:
    """(3, 3): the rows are the unit absorptions of haematoxylin, eosin and DAB."""
    return torch.nn.functional.normalize(torch.tensor(_HED, device=like.device), dim=1)


def to_hed(x: Tensor) -> Tensor:
    """RGB → amounts of haematoxylin, eosin and DAB (B, 3, H, W)."""
    return _mix(hed_matrix(x).inverse().T, density(x))


def from_hed(stains: Tensor) -> Tensor:
    """Amounts of haematoxylin, eosin and DAB → RGB."""
    return light(_mix(hed_matrix(stains).T, stains))


def jitter(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Other amounts of each stain (Tellez 2018): s → s · scale + shift, both (B, 3)."""
    stains = to_hed(x)
    return from_hed(stains * scale[:, :, None, None] + shift[:, :, None, None])


def macenko(
    x: Tensor, *, least: float = 0.15, tail: float = 1.0, points: int = 4096
) -> tuple[Tensor, Tensor, Tensor]:
    """The two stains of each image (Macenko 2009).

    The plane of the two main directions of optical density, and in it the extreme angles (the
    ``tail`` and 100 − ``tail`` percentiles); pixels under ``least`` density in any channel (in
    units of ln, as the authors' 0.15) are glass and left out.

    Returns:
        (B, 2, 3) unit absorptions of haematoxylin and eosin, (B, 2) the 99th percentile of their
        amounts, and (B,) whether there was enough tissue to tell.
    """
    od = density(x).flatten(2).transpose(1, 2)  # (B, P, 3)
    if od.shape[1] > points:
        od = od[:, torch.linspace(0, od.shape[1] - 1, points, device=x.device).long()]
    kept = (od > least).all(dim=2)  # (B, P)
    weight = kept.float()
    count = weight.sum(dim=1)
    told = count >= 32
    n = count.clamp(min=1)[:, None]
    mean = (od * weight[..., None]).sum(dim=1) / n
    centred = (od - mean[:, None]) * weight[..., None]
    covariance = centred.transpose(1, 2) @ centred / n[..., None]
    covariance = torch.where(told[:, None, None], covariance, torch.eye(3, device=x.device))
    main = torch.linalg.eigh(covariance.double())[1][..., 1:].float()  # (B, 3, 2) ascending
    main = main * main.sum(dim=1, keepdim=True).sign()  # towards absorption
    plane = od @ main  # (B, P, 2)
    angle = torch.atan2(plane[..., 0], plane[..., 1])
    angle = torch.where(kept, angle, torch.nan)
    ends = torch.nan_to_num(
        torch.nanquantile(angle, torch.tensor([tail / 100, 1 - tail / 100], device=x.device), dim=1)
    )  # (2, B)
    both = torch.stack([ends.sin(), ends.cos()], dim=2)  # (2, B, 2)
    vectors = torch.einsum("bcd,kbd->bkc", main, both)  # (B, 2, 3)
    vectors = torch.nn.functional.normalize(vectors.clamp(min=1e-4), dim=2)
    # Haematoxylin absorbs more red than eosin does.
    swap = vectors[:, 0, 0] < vectors[:, 1, 0]
    vectors = torch.where(swap[:, None, None], vectors.flip(1), vectors)
    amounts = _amounts(vectors, od)  # (B, P, 2)
    amounts = torch.where(kept[..., None], amounts, torch.nan)
    strength = torch.nan_to_num(torch.nanquantile(amounts, 0.99, dim=1), nan=1.0)
    return vectors, strength.clamp(min=1e-3), told


def _amounts(vectors: Tensor, od: Tensor) -> Tensor:
    """Least squares: (B, 2, 3), (B, P, 3) → (B, P, 2)."""
    gram = vectors @ vectors.transpose(1, 2) + 1e-6 * torch.eye(2, device=od.device)
    return od @ vectors.transpose(1, 2) @ gram.inverse()


def to_macenko(x: Tensor, order: Tensor) -> Tensor:
    """Each image b in the stains and strengths of image order[b] (Macenko 2009).

    Images in which either has too little tissue stay as they are.
    """
    vectors, strength, told = macenko(x)
    od = density(x).flatten(2).transpose(1, 2)  # (B, P, 3)
    amounts = _amounts(vectors, od)
    rest = od - amounts @ vectors  # what two stains do not explain stays
    scaled = amounts * (strength[order] / strength)[:, None]
    out = light((scaled @ vectors[order] + rest).transpose(1, 2).unflatten(2, x.shape[2:]))
    return torch.where((told & told[order])[:, None, None, None], out, x)


def to_lab(x: Tensor) -> Tensor:
    """RGB → lαβ of Ruderman, as Reinhard 2001 uses it."""
    lms = _mix(torch.tensor(_LMS, device=x.device), x).clamp(min=_LEAST)
    return _mix(torch.tensor(_LAB, device=x.device), lms.log10())


def from_lab(lab: Tensor) -> Tensor:
    """The inverse of `to_lab`."""
    lms = 10 ** _mix(torch.tensor(_LAB, device=lab.device).inverse(), lab)
    return _mix(torch.tensor(_LMS, device=lab.device).inverse(), lms).clamp(0, 1)


def to_reinhard(x: Tensor, order: Tensor) -> Tensor:
    """Each image b with the mean and spread of colours in lαβ of image order[b] (Reinhard 2001)."""
    lab = to_lab(x)
    mean = lab.mean(dim=(2, 3), keepdim=True)
    std = lab.std(dim=(2, 3), keepdim=True).clamp(min=1e-3)
    return from_lab((lab - mean) * (std[order] / std) + mean[order])
