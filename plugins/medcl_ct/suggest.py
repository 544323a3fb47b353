"""Which recipe to begin with, by the kind of most images in an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

_FIRST = {
    "ct": ("ct/demo", "ct/simclr-2d"),
    "mr": ("ct/mr-demo", "ct/mr-simclr-2d"),
    "pet": ("ct/pet-demo", "ct/pet-mae-3d"),
}
"""By modality: without and with a GPU."""


def suggest(items: pl.DataFrame, gpu: bool) -> str:
    """Slices, for they need the least memory and time; of MR and PET, their own recipes."""
    kinds = items["modality"].drop_nulls() if "modality" in items.columns else items["id"][:0]
    most = kinds.value_counts(sort=True)[kinds.name].to_list() if len(kinds) else ["ct"]
    return _FIRST.get(str(most[0]), _FIRST["ct"])[gpu]
