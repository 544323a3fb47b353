"""The plugin value of this modality. Light to import: torch and OpenSlide load when needed."""

from __future__ import annotations

from medcl.plugin import CONTRACT, Plugin, Task
from medcl_pathology.mil.registry import CLASSIFIERS
from medcl_pathology.scan import scan
from medcl_pathology.units import units

_CRC = ("TUMOR", "STROMA", "COMPLEX", "LYMPHO", "DEBRIS", "MUCOSA", "ADIPOSE", "EMPTY")

plugin = Plugin(
    name="pathology",
    summary="Whole slides to tissue, tiles and bags of features; tiles and existing bags as well.",
    contract=CONTRACT,
    units=units,
    scan=scan,
    prepare="medcl_pathology.prepare:prepare",
    dataset="medcl_pathology.dataset:dataset",
    views="medcl_pathology.views:views",
    encoders={
        "resnet": "medcl_pathology.encoders.resnet:resnet",
        "vit": "medcl_pathology.encoders.vit:vit",
        "huggingface": "medcl_pathology.encoders.huggingface:huggingface",
        "timm": "medcl_pathology.encoders.released:timm",
        "uni": "medcl_pathology.encoders.released:uni",
        "conch": "medcl_pathology.encoders.released:conch",
        "virchow": "medcl_pathology.encoders.released:virchow",
        "phikon": "medcl_pathology.encoders.released:phikon",
        "h-optimus-0": "medcl_pathology.encoders.released:h_optimus_0",
        "gigapath": "medcl_pathology.encoders.released:gigapath",
    },
    classifiers=CLASSIFIERS,
    tasks={
        "tissue": Task(
            label="tissue",
            kind="multiclass",
            classes=_CRC,
            about="The eight tissue classes of colorectal tiles (Kather 2016).",
        ),
        "bag": Task(
            label="y",
            kind="binary",
            classes=("negative", "positive"),
            dataset={"kind": "bag"},
            about="The class of a bag, as in MUSK, Elephant and Fox.",
        ),
    },
    baselines={"handcrafted": "medcl_pathology.baselines:handcrafted"},
    look="medcl_pathology.look:look",
    explain="medcl_pathology.heatmap:explain",
    preview="medcl_pathology.preview:preview",
)
