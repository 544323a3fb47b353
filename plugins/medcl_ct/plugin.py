"""The plugin value of this modality. Light to import: torch, pydicom and nibabel load when needed.

An archive's slices are read one by one, wherever they lie (`scan`), and joined into series when all
are known (`assemble`); a problem that is noticed on the way has a name (`findings`), and what is
done about it is set in the recipe (``prepare.policy``).
"""

from __future__ import annotations

from pathlib import Path

from medcl.plugin import CONTRACT, Plugin, Task
from medcl_ct.scan import scan
from medcl_ct.series import assemble
from medcl_ct.units import units

plugin = Plugin(
    name="ct",
    summary="CT: DICOM archives, NIfTI and NRRD to volumes in HU, for encoders in 2D and 3D.",
    contract=CONTRACT,
    units=units,
    scan=scan,
    assemble=assemble,
    prepare="medcl_ct.prepare:prepare",
    dataset="medcl_ct.dataset:dataset",
    views="medcl_ct.views:views",
    encoders={
        "resnet2d": "medcl_ct.encoders.resnet:resnet2d",
        "resnet3d": "medcl_ct.encoders.resnet:resnet3d",
        "vit2d": "medcl_ct.encoders.vit:vit2d",
        "vit3d": "medcl_ct.encoders.vit:vit3d",
        "swin_unetr3d": "medcl_ct.encoders.swin:swin_unetr3d",
        "huggingface2d": "medcl_ct.encoders.huggingface:huggingface2d",
        "scattering2d": "medcl_ct.encoders.scattering:scattering2d",
        "joint": "medcl_ct.encoders.joint:joint",
    },
    tasks={
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
        "weak-region": Task(
            label="weak_region",
            kind="multiclass",
            about="Body regions that the header's free texts name: noisy, and free of charge.",
        ),
    },
    methods={"joint2d3d": "medcl_ct.joint:Joint2D3D"},
    pictures="medcl_ct.pictures:pictures",
    findings="medcl_ct.findings:FINDINGS",
    preview="medcl_ct.preview:preview",
    preparation=2,
    sample=Path(__file__).parent / "sample",
    demo="ct/demo",
)
