"""The plugin value of this modality. Light to import: torch, scipy and wfdb load when needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medcl.plugin import CLINICAL, Plugin, Shared, Showcase, Task
from medcl_biosignals.aami import CLASSES
from medcl_biosignals.scan import scan
from medcl_biosignals.scp import codes
from medcl_biosignals.spans import STAGES
from medcl_biosignals.suggest import suggest
from medcl_biosignals.units import units

_BEAT = {"kind": "beat", "stride": 0.0, "quality": 0.0}
_AUGMENTATIONS = (
    "crop", "shift", "stretch", "time_warp", "magnitude_warp", "scale", "rotate", "vcg",
    "flip_sign", "channel_drop", "channel_permute", "colour", "phase", "low_pass",
    "frequency_mask", "noise", "baseline", "mains", "motion", "electrode", "cutout",
)  # fmt: skip

_HINTS = {
    **dict.fromkeys((".atr", ".qrs", ".ecg", ".ari", ".apn", ".st", ".man"),
                    "annotations of a WFDB record: its header (.hea) must lie beside them"),
    **dict.fromkeys((".vhdr", ".eeg", ".set", ".cnt"),
                    "not read: save it as EDF, with MNE-Python's raw.export"),
    **dict.fromkeys((".gpx", ".tcx"), "a track without signals: export the activity as FIT"),
    ".json": "no recording of a wearable by its content: nothing to do, or save its values as CSV",
    ".txt": "no recorder's text by its content: if it holds samples, name it .csv",
    ".pdf": "a printout: export the waveform itself, as XML, DICOM or EDF",
    ".wav": "sound: save its samples as .npy or .csv, and give --set reader.fs=…",
}  # fmt: skip


_RELEASED = ("papagei-s", "ecg-fm", "hubert-ecg", "ecgfounder", "ecgfounder-1lead", "ecg-cpc")


def _channels(leads: Sequence[str] | None, channels: int) -> int:
    """Of a prepared signal: as many as there are leads, or as ``channels`` says without them."""
    return channels if leads is None else len(leads)


def _classes(
    task: str | None,
    kind: str,
    classes: Sequence[str],
    rhythms: Sequence[str],
    stages: Sequence[str],
) -> int | None:
    """Of the label that pretraining is given (`medcl.engine.data.select`), where it is ours."""
    if task in ("rhythm", "sleep"):
        return len(rhythms if task == "rhythm" else stages)
    return len(classes) if kind == "beat" else None


plugin = Plugin(
    name="biosignals",
    summary="ECG, PPG and other waveforms: WFDB, EDF, CSV … to clean windows and beats.",
    contract=1,
    units=units,
    scan=scan,
    prepare="medcl_biosignals.prepare:prepare",
    dataset="medcl_biosignals.dataset:dataset",
    views="medcl_biosignals.views:views",
    augmentations={name: f"medcl_biosignals.augmentations:{name}" for name in _AUGMENTATIONS},
    compose="medcl_biosignals.views:composed",
    shared=(
        Shared("sampling rate in Hz", ("prepare.fs",), ("views.fs", "encoder.fs", "method.fs")),
        Shared("scale of the windows", ("dataset.scale",), ("encoder.windows",)),
        Shared(
            "number of channels",
            ("prepare.leads", "prepare.channels"),
            ("encoder.channels", "method.channels"),
            _channels,
        ),
        Shared(
            "number of classes",
            (
                "probe.task",
                "dataset.kind",
                "dataset.classes",
                "dataset.rhythms",
                "dataset.stages",
            ),
            ("method.classes",),
            _classes,
        ),
        *CLINICAL,
    ),
    encoders={
        "resnet1d": "medcl_biosignals.encoders.resnet:resnet1d",
        "mbconv1d": "medcl_biosignals.encoders.mbconv:mbconv1d",
        "efficientnet1d": "medcl_biosignals.encoders.efficientnet:efficientnet1d",
        "xresnet1d": "medcl_biosignals.encoders.xresnet:xresnet1d",
        "selfsimilar1d": "medcl_biosignals.encoders.selfsimilar:selfsimilar1d",
        "inceptiontime": "medcl_biosignals.encoders.inception:inceptiontime",
        "tcn": "medcl_biosignals.encoders.tcn:tcn",
        "s4d1d": "medcl_biosignals.encoders.s4d:s4d1d",
        "vit1d": "medcl_biosignals.encoders.vit:vit1d",
        "patchtst": "medcl_biosignals.encoders.vit:patchtst",
        "two-towers": "medcl_biosignals.encoders.towers:two_towers",
        "sensor-vit": "medcl_biosignals.encoders.sensors:sensor_vit",
        "preact-resnet1d": "medcl_biosignals.encoders.hong:preact_resnet1d",
        **{
            name: f"medcl_biosignals.encoders.released:{name.replace('-', '_')}"
            for name in _RELEASED
        },
    },
    tasks={
        "aami": Task(
            label="aami",
            kind="multiclass",
            classes=CLASSES,
            dataset=_BEAT,
            about="Beats into the five AAMI EC57 classes, paced records left out.",
        ),
        "aami-nsv": Task(
            label="aami",
            kind="multiclass",
            classes=("N", "S", "V"),
            dataset={**_BEAT, "classes": ("N", "S", "V")},
            about="Beats into N, S and V; the rare fusion and unclassifiable beats left out.",
        ),
        "sleep": Task(
            label="stage",
            kind="multiclass",
            classes=STAGES,
            dataset={"kind": "window", "seconds": 30.0, "stride": 30.0, "stages": STAGES},
            about="Windows of 30 s into the five sleep stages, where they are scored.",
        ),
        "rhythm": Task(
            label="rhythm",
            kind="multiclass",
            classes=("N", "AFIB"),
            dataset={"kind": "window", "rhythms": ("N", "AFIB")},
            about="Windows of sinus rhythm against atrial fibrillation, where rhythms are marked.",
        ),
    },
    methods={
        "described": "medcl_biosignals.methods.described:Described",
        "alike-beats": "medcl_biosignals.methods.alike_beats:AlikeBeats",
        "order-aware": "medcl_biosignals.methods.order:OrderAware",
        "quantised": "medcl_biosignals.methods.quantised:Quantised",
        "similar-snippets": "medcl_biosignals.methods.similar_snippets:SimilarSnippets",
        "forecast": "medcl_biosignals.methods.forecast:Forecast",
        "cross-modal": "medcl_biosignals.methods.cross_modal:CrossModal",
        "papagei-s": "medcl_biosignals.methods.papagei:PaPaGeiS",
        "aim": "medcl_biosignals.methods.aim:AIM",
    },
    baselines={
        "handcrafted": "medcl_biosignals.baselines:handcrafted",
        "raw": "medcl_biosignals.baselines:raw",
    },
    benchmarks={
        name: f"medcl_biosignals.benchmarks.{name}:{name}"
        for name in ("ptbxl", "cinc2017", "cinc2011", "liu2022", "mitbih", "ucr")
    },
    stream="medcl_biosignals.streaming:stream",
    findings="medcl_biosignals.findings:FINDINGS",
    look="medcl_biosignals.look:look",
    measures={"beats": "medcl_biosignals.beats:beats"},
    save="medcl_biosignals.in_memory:save",
    preview="medcl_biosignals.preview:preview",
    codes=codes,
    suggest=suggest,
    hints=_HINTS,
    preparation=6,
    sample=Path(__file__).parent / "sample",
    demo="biosignals/demo",
    showcase=Showcase(
        encoder="ecg-small",
        benchmark="ptbxl",
        data=Path(__file__).parent / "sample_ptbxl",
        about="the ECGs of 298 people whom it has not seen, a tenth of them labelled",
    ),
    released=Path(__file__).parent / "released",
)
