"""Turning the heart in the chest: twelve leads as seen through the vectorcardiogram."""

from __future__ import annotations

import torch
from torch import Tensor

from medcl.errors import UsageError

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The order that channels must have."""

# Dower 1980 (doi 10.1016/s0022-0736(80)80046-8): leads from X, Y, Z.
_DOWER = {
    "V1": (-0.515, 0.157, -0.917),
    "V2": (0.044, 0.164, -1.387),
    "V3": (0.882, 0.098, -1.277),
    "V4": (1.213, 0.127, -0.601),
    "V5": (1.125, 0.127, -0.086),
    "V6": (0.831, 0.076, 0.230),
    "I": (0.632, -0.235, 0.059),
    "II": (0.235, 1.066, -0.132),
}


def dower() -> Tensor:
    """(12, 3): `LEADS` from the three axes; limb leads that the table lacks follow by sums."""
    rows = {lead: torch.tensor(row) for lead, row in _DOWER.items()}
    one, two = rows["I"], rows["II"]
    rows |= {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    return torch.stack([rows[lead] for lead in LEADS])


def inverse_dower() -> Tensor:
    """(3, 12): the axes from `LEADS`, by least squares over the eight independent ones.

    Near the table of Edenbrandt & Pahlm 1988 (doi 10.1016/0022-0736(88)90113-4).
    """
    independent = torch.tensor([LEADS.index(lead) for lead in _DOWER])
    out = torch.zeros(3, len(LEADS))
    out[:, independent] = torch.linalg.pinv(dower()[independent])
    return out


def turn(x: Tensor, angles: Tensor, factors: Tensor) -> Tensor:
    """The same heart, turned and stretched along the body's axes (3KG: Gopal 2021, 2106.04452).

    What the three axes do not explain of a lead is left as it is (3KG drops it), so that no turn
    and no stretch give the signal itself.

    Args:
        x: (B, 12, T), channels as in `LEADS`.
        angles: (B, 3) radians about X, Y and Z.
        factors: (B, 3) along X, Y and Z.

    Raises:
        UsageError: if there are not twelve channels.
    """
    if x.shape[1] != len(LEADS):
        raise UsageError(
            f"views.vcg needs the twelve leads {', '.join(LEADS)} in this order, and there are "
            f"{x.shape[1]} channels. Set prepare.leads, or leave it out."
        )
    there, back = dower().to(x), inverse_dower().to(x)
    moved = rotation(angles) * factors[:, None]  # stretched, then turned
    change = moved - torch.eye(3, device=x.device, dtype=x.dtype)
    return x + there @ change @ (back @ x)


def rotation(angles: Tensor) -> Tensor:
    """Rotations about X, then Y, then Z: (B, 3) radians → (B, 3, 3)."""
    sin, cos = angles.sin(), angles.cos()
    out = torch.eye(3, device=angles.device, dtype=angles.dtype).expand(len(angles), 3, 3)
    for axis in range(3):
        one, two = (axis + 1) % 3, (axis + 2) % 3
        about = torch.eye(3, device=angles.device, dtype=angles.dtype).repeat(len(angles), 1, 1)
        about[:, one, one], about[:, two, two] = cos[:, axis], cos[:, axis]
        about[:, one, two], about[:, two, one] = -sin[:, axis], sin[:, axis]
        out = about @ out
    return out
