"""The plugin value of this modality. Light to import: torch and OpenSlide load when needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medcl.plugin import CONTRACT, Plugin, Shared, Task
from medcl_pathology.mil.registry import CLASSIFIERS
from medcl_pathology.scan import assemble, scan
from medcl_pathology.suggest import suggest
from medcl_pathology.units import units

_CRC = ("TUMOR", "STROMA", "COMPLEX", "LYMPHO", "DEBRIS", "MUCOSA", "ADIPOSE", "EMPTY")
# Of `medcl_pathology.encoders.models.RELEASED`, which needs torch; a test holds them together.
_RELEASED = (
    "uni", "uni2-h", "conch", "conch-v1.5", "virchow", "virchow2", "h-optimus-0", "h-optimus-1",
    "gigapath", "phikon", "phikon-v2", "hibou-b", "hibou-l", "midnight", "ctranspath",
    "kaiko-vits16", "kaiko-vitb16", "kaiko-vitl14", "lunit-vits16", "titan", "prism", "chief",
    "gigapath-slide",
)  # fmt: skip

_TASKS = {
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
}
_BENCHMARKS = {
    "kather": ("kather2016", "kather2018"),
    "medmnist": ("pathmnist", "dermamnist", "bloodmnist", "retinamnist"),
    "mil": ("musk1", "musk2", "elephant", "fox", "tiger"),
}
_AUGMENTATIONS = (
    "mix", "crop", "symmetry", "hed", "tone", "grey", "blur", "focus", "compress",
)  # fmt: skip


def _channels(kind: str, channels: Sequence[str] | None) -> int | None:
    """Of a tile: red, green and blue, or the channels that are named."""
    return 3 if kind == "tile" else len(channels) if channels else None


def _classes(task: str | None) -> int | None:
    """Of the task's label, which pretraining is given."""
    return (len(_TASKS[task].classes) or None) if task is not None else None


plugin = Plugin(
    name="pathology",
    summary="Whole slides to tissue, tiles and bags of features; tiles and existing bags as well.",
    contract=CONTRACT,
    units=units,
    scan=scan,
    assemble=assemble,
    prepare="medcl_pathology.prepare:prepare",
    findings="medcl_pathology.findings:FINDINGS",
    dataset="medcl_pathology.dataset:dataset",
    views="medcl_pathology.views:views",
    augmentations={name: f"medcl_pathology.augmentations:{name}" for name in _AUGMENTATIONS},
    compose="medcl_pathology.views_composed:composed",
    shared=(
        Shared(
            "number of channels",
            ("dataset.kind", "dataset.channels"),
            ("encoder.channels",),
            _channels,
        ),
        Shared("number of classes", ("probe.task",), ("method.classes",), _classes),
    ),
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
    methods={"songci": "medcl_pathology.songci:SongCi"},
    classifiers=CLASSIFIERS,
    tasks=_TASKS,
    baselines={"handcrafted": "medcl_pathology.baselines:handcrafted"},
    benchmarks={
        name: f"medcl_pathology.benchmarks.{module}:{name}"
        for module, names in _BENCHMARKS.items()
        for name in names
    },
    sample=Path(__file__).parent / "sample",
    demo="pathology/demo",
    item="slide",
    preparation=3,  # coordinates in pixels, stains of all kinds, alpha on white
    look="medcl_pathology.look:look",
    explain="medcl_pathology.heatmap:explain",
    thumbnail="medcl_pathology.heatmap:thumbnail",
    preview="medcl_pathology.preview:preview",
    suggest=suggest,
    hints={
        **dict.fromkeys((".dat", ".ini"), "of a MIRAX slide: its .mrxs must lie beside its folder"),
        **dict.fromkeys((".geojson", ".xml", ".json"), "regions or notes on slides: not read"),
        **dict.fromkeys((".jpg", ".jpeg", ".png"), "an overview, or too small for a tile"),
        **dict.fromkeys(
            (".isyntax", ".kfb", ".sdpc", ".tmap", ".mds", ".lif", ".nd2", ".jp2"),
            "a slide format that is not read: convert it to a pyramidal OME-TIFF",
        ),
        ".pkl": "a pickle may run any code: save the bag as .npy, .h5 or .safetensors",
    },
)
