"""The fourteen grey sets of MedMNIST v2, eight of slices and six of boxes.

Files: `medcl_ct.benchmark`; parts and metrics: `medcl.benchmark.array_set`. All are seen as slices
or volumes; those that are no CT on its scale, which the page says.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medcl.benchmark.array_set import ArraySet, benchmark
from medcl.benchmark.contract import Benchmark
from medcl.plugin import Samples
from medcl_ct.benchmark import CHEST

_ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver",
    "lung-left", "lung-right", "pancreas", "spleen",
)  # fmt: skip
_ORGANS_3D = (
    "liver", "kidney-right", "kidney-left", "femur-right", "femur-left", "bladder", "heart",
    "lung-right", "lung-left", "spleen", "pancreas",
)  # fmt: skip
_TISSUE = (
    "Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule",
    "Glomerular endothelial cells", "Interstitial endothelial cells", "Leukocytes", "Podocytes",
    "Proximal Tubule Segments", "Thick Ascending Limb",
)  # fmt: skip
_OCT = ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal")
_RIBS = ("buckle rib fracture", "nondisplaced rib fracture", "displaced rib fracture")
_SYNAPSES = ("inhibitory synapse", "excitatory synapse")

SETS = {
    "organamnist": ArraySet("OrganAMNIST", _ORGANS, 58_830),
    "organcmnist": ArraySet("OrganCMNIST", _ORGANS, 23_583),
    "organsmnist": ArraySet("OrganSMNIST", _ORGANS, 25_211),
    "chestmnist": ArraySet("ChestMNIST", CHEST, 112_120, "multilabel"),
    "pneumoniamnist": ArraySet("PneumoniaMNIST", ("normal", "pneumonia"), 5856, "binary"),
    "octmnist": ArraySet("OCTMNIST", _OCT, 109_309),
    "breastmnist": ArraySet("BreastMNIST", ("malignant", "normal, benign"), 780, "binary"),
    "tissuemnist": ArraySet("TissueMNIST", _TISSUE, 236_386),
    "organmnist3d": ArraySet("OrganMNIST3D", _ORGANS_3D, 1742),
    "nodulemnist3d": ArraySet("NoduleMNIST3D", ("benign", "malignant"), 1633, "binary"),
    "adrenalmnist3d": ArraySet("AdrenalMNIST3D", ("normal", "hyperplasia"), 1584, "binary"),
    "fracturemnist3d": ArraySet("FractureMNIST3D", _RIBS, 1370),
    "vesselmnist3d": ArraySet("VesselMNIST3D", ("vessel", "aneurysm"), 1908, "binary"),
    "synapsemnist3d": ArraySet("SynapseMNIST3D", _SYNAPSES, 1759, "binary"),
}
_HU = ("organ", "nodule", "fracture")
_WINDOWS = {"nodulemnist3d": (-600, 1500), "fracturemnist3d": (300, 1500)}


def _opened(name: str, folder: Path) -> Benchmark:
    """A set in a folder with its file, of any size; see `medcl.benchmark.array_set.benchmark`."""
    boxes = name.endswith("3d")
    level, width = _WINDOWS.get(name, (40, 400))

    def settings(size: tuple[int, ...]) -> tuple[str, ...]:
        return (
            f"dataset.size={list(size)}",
            f"views.size=[{size[-1]}]",
            f"encoder.window=[{level},{width}]",
            "encoder.depth=10",
            "encoder.base=16",
        )

    return benchmark(
        name,
        SETS[name],
        folder,
        recipe="ct/organmnist3d" if boxes else "ct/organsmnist",
        settings=settings,
        dataset=lambda size: {"kind": "volume" if boxes else "slice", "size": size},
        place=_box if boxes else _slice,
        notes=()
        if name.startswith(_HU)
        else ("Its grey values have no unit: encoders see 0 to 255 as -160 to 240 HU.",),
    )


def _slice(samples: Samples) -> NDArray[np.int64]:
    return _where(samples, "slice")


def _box(samples: Samples) -> NDArray[np.int64]:
    return _where(samples, "part")


def _where(samples: Samples, column: str) -> NDArray[np.int64]:
    assert samples.where is not None
    return np.asarray(samples.where(np.arange(len(samples)))[column], np.int64)


organamnist = partial(_opened, "organamnist")
organcmnist = partial(_opened, "organcmnist")
organsmnist = partial(_opened, "organsmnist")
chestmnist = partial(_opened, "chestmnist")
pneumoniamnist = partial(_opened, "pneumoniamnist")
octmnist = partial(_opened, "octmnist")
breastmnist = partial(_opened, "breastmnist")
tissuemnist = partial(_opened, "tissuemnist")
organmnist3d = partial(_opened, "organmnist3d")
nodulemnist3d = partial(_opened, "nodulemnist3d")
adrenalmnist3d = partial(_opened, "adrenalmnist3d")
fracturemnist3d = partial(_opened, "fracturemnist3d")
vesselmnist3d = partial(_opened, "vesselmnist3d")
synapsemnist3d = partial(_opened, "synapsemnist3d")
