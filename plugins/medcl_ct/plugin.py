"""The plugin value of this modality. Light to import: torch, pydicom and nibabel load when needed.

An archive's slices are read one by one, wherever they lie (`scan`), and joined into series when all
are known (`assemble`); a problem that is noticed on the way has a name (`findings`), and what is
done about it is set in the recipe (``prepare.policy``).
"""

from __future__ import annotations

from pathlib import Path

from medcl.plugin import CLINICAL, CONTRACT, Plugin, Shared, Task
from medcl_ct.scan import scan
from medcl_ct.series import assemble
from medcl_ct.suggest import suggest
from medcl_ct.units import units

_TASKS = {
    "organ": Task(
        label="organ",
        kind="multiclass",
        about="The organ that was cut out, as in OrganSMNIST and OrganMNIST3D.",
    ),
    "nodule": Task(
        label="nodule",
        kind="binary",
        classes=("benign", "malignant"),
        about="Whether a lung nodule is malignant, as in NoduleMNIST3D.",
    ),
    "region": Task(
        label="region",
        kind="multiclass",
        about="The most frequent value of the mask beside a volume; 0 where there is none.",
    ),
    "segment": Task(
        label="mask",
        kind="mask",
        dataset={"kind": "whole"},
        about="The class of each voxel, from the masks beside the volumes.",
    ),
    "weak-region": Task(
        label="weak_region",
        kind="multiclass",
        about="Body regions that the header's free texts name: noisy, and free of charge.",
    ),
}
_BENCHMARKS = (
    "organamnist", "organcmnist", "organsmnist", "chestmnist", "pneumoniamnist", "octmnist",
    "breastmnist", "tissuemnist", "organmnist3d", "nodulemnist3d", "adrenalmnist3d",
    "fracturemnist3d", "vesselmnist3d", "synapsemnist3d",
)  # fmt: skip
_AUGMENTATIONS = (
    "crop", "flip", "rotate", "tilt", "elastic", "window", "gamma", "noise", "blur", "sharpen",
    "kernel", "cutout", "drop_slices",
)  # fmt: skip


def _channels(kind: str, neighbours: int) -> int | None:
    """Of a sample: a slice and its neighbours. Boxes may be slabs of any number of slices."""
    return 1 + 2 * neighbours if kind == "slice" else None


def _classes(task: str | None) -> int | None:
    """Of the task's label, which pretraining is given, where the task names them."""
    return (len(_TASKS[task].classes) or None) if task is not None else None


plugin = Plugin(
    name="ct",
    summary="CT, MR, PET: DICOM archives, NIfTI, NRRD to volumes, for encoders in 2D and 3D.",
    contract=CONTRACT,
    units=units,
    scan=scan,
    assemble=assemble,
    prepare="medcl_ct.prepare:prepare",
    dataset="medcl_ct.dataset:dataset",
    views="medcl_ct.views:views",
    augmentations={name: f"medcl_ct.augmentations:{name}" for name in _AUGMENTATIONS},
    compose="medcl_ct.views_composed:composed",
    shared=(
        Shared("level and width in HU of what is seen", ("encoder.window",), ("views.shown",)),
        Shared(
            "kind of image: ct, mr or pet",
            ("prepare.modality",),
            ("dataset.modality", "views.modality"),
        ),
        Shared(
            "number of neighbouring slices, the middle one included",
            ("dataset.kind", "dataset.neighbours"),
            ("encoder.channels",),
            _channels,
        ),
        Shared("number of classes", ("probe.task",), ("method.classes",), _classes),
        *CLINICAL,
    ),
    encoders={
        "resnet2d": "medcl_ct.encoders.resnet:resnet2d",
        "resnet3d": "medcl_ct.encoders.resnet:resnet3d",
        "resenc3d": "medcl_ct.encoders.resenc:resenc3d",
        "vit2d": "medcl_ct.encoders.vit:vit2d",
        "vit3d": "medcl_ct.encoders.vit:vit3d",
        "primus3d": "medcl_ct.encoders.primus:primus3d",
        "swin_unetr3d": "medcl_ct.encoders.swin:swin_unetr3d",
        "huggingface2d": "medcl_ct.encoders.huggingface:huggingface2d",
        "scattering2d": "medcl_ct.encoders.scattering:scattering2d",
        "joint": "medcl_ct.encoders.joint:joint",
    },
    tasks=_TASKS,
    methods={"joint2d3d": "medcl_ct.joint:Joint2D3D"},
    benchmarks={name: f"medcl_ct.benchmarks.medmnist:{name}" for name in _BENCHMARKS},
    pictures="medcl_ct.pictures:pictures",
    findings="medcl_ct.findings:FINDINGS",
    preview="medcl_ct.preview:preview",
    suggest=suggest,
    hints={
        **dict.fromkeys(
            (".raw", ".img"), "the data of a volume: its header (.mhd, .hdr) is missing"
        ),
        **dict.fromkeys((".bval", ".bvec"), "of diffusion MRI: not needed"),
        **dict.fromkeys((".mgz", ".mgh", ".mnc"), "a volume of FreeSurfer or MINC: export NIfTI"),
        **dict.fromkeys((".stl", ".obj", ".vtk"), "a surface: export the segmentation as NIfTI"),
    },
    overlay="medcl_ct.overlay:overlay",
    write_masks="medcl_ct.write_masks:write_masks",
    exports={"nnunet": "medcl_ct.nnunet:export"},
    preparation=5,
    sample=Path(__file__).parent / "sample",
    demo="ct/demo",
)
