"""The four sets of MedMNIST v2 in colour, as tiles.

Files: `medcl_pathology.medmnist`; parts and metrics: `medcl.benchmark.array_set`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medcl.benchmark.array_set import ArraySet, benchmark
from medcl.benchmark.contract import Benchmark
from medcl.plugin import Samples

_TISSUE = (
    "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle",
    "normal colon mucosa", "cancer-associated stroma", "colorectal adenocarcinoma epithelium",
)  # fmt: skip
_SKIN = (
    "actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma",
    "benign keratosis-like lesions", "dermatofibroma", "melanoma", "melanocytic nevi",
    "vascular lesions",
)  # fmt: skip
_CELLS = (
    "basophil", "eosinophil", "erythroblast", "immature granulocytes", "lymphocyte", "monocyte",
    "neutrophil", "platelet",
)  # fmt: skip

SETS = {
    "pathmnist": ArraySet("PathMNIST", _TISSUE, 107_180),
    "dermamnist": ArraySet("DermaMNIST", _SKIN, 10_015),
    "bloodmnist": ArraySet("BloodMNIST", _CELLS, 17_092),
    "retinamnist": ArraySet("RetinaMNIST", ("0", "1", "2", "3", "4"), 1600),
}


def _opened(name: str, folder: Path) -> Benchmark:
    """A set in a folder with its file, of any size; see `medcl.benchmark.array_set.benchmark`."""
    return benchmark(
        name,
        SETS[name],
        folder,
        recipe="pathology/kather-tiles",
        settings=lambda size: (
            f"dataset.size={size[0]}",
            f"views.size={size[0]}",
            "encoder.depth=10",
            "encoder.base=16",
        ),
        dataset=lambda size: {"kind": "tile", "size": size[0], "tiles": None},
        place=_number,
        notes=()
        if name in ("pathmnist", "bloodmnist")
        else ("No stained tissue: hand-crafted features of stains are colours and no more.",),
    )


def _number(samples: Samples) -> NDArray[np.int64]:
    """The number of each tile in its block, from its id."""
    return np.array([int(name.rpartition(":")[2]) for name in samples.ids], np.int64)


pathmnist = partial(_opened, "pathmnist")
dermamnist = partial(_opened, "dermamnist")
bloodmnist = partial(_opened, "bloodmnist")
retinamnist = partial(_opened, "retinamnist")
