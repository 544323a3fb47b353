"""The plugin value of this modality. Light to import: torch and OpenSlide load when needed."""

from __future__ import annotations

from medcl.plugin import CONTRACT, Plugin, Task
from medcl_pathology.mil.registry import CLASSIFIERS
from medcl_pathology.scan import assemble, scan
from medcl_pathology.units import units

_CRC = ("TUMOR", "STROMA", "COMPLEX", "LYMPHO", "DEBRIS", "MUCOSA", "ADIPOSE", "EMPTY")
# Of `medcl_pathology.encoders.models.RELEASED`, which needs torch; a test holds them together.
_RELEASED = (
    "uni", "uni2-h", "conch", "conch-v1.5", "virchow", "virchow2", "h-optimus-0", "h-optimus-1",
    "gigapath", "phikon", "phikon-v2", "hibou-b", "hibou-l", "midnight", "ctranspath",
    "kaiko-vits16", "kaiko-vitb16", "kaiko-vitl14", "lunit-vits16", "titan", "prism", "chief",
    "gigapath-slide",
)  # fmt: skip

plugin = Plugin(
    name="pathology",
    summary="Whole slides to tissue, tiles and bags of features; tiles and existing bags as well.",
    contract=CONTRACT,
    units=units,
    scan=scan,
    assemble=assemble,
    prepare="medcl_pathology.prepare:prepare",
    dataset="medcl_pathology.dataset:dataset",
    views="medcl_pathology.views:views",
    encoders={
        "resnet": "medcl_pathology.encoders.resnet:resnet",
        "vit": "medcl_pathology.encoders.vit:vit",
        "huggingface": "medcl_pathology.encoders.huggingface:huggingface",
        "timm": "medcl_pathology.encoders.released:timm",
        **{
            name: f"medcl_pathology.encoders.released:{name.replace('-', '_').replace('.', '_')}"
            for name in _RELEASED
        },
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
    item="slide",
    preparation=2,  # coordinates in pixels, stains of IHC, alpha on white
)
