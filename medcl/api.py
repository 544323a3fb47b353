"""The functions of ``import medcl``: the verbs of the command line.

They take paths, names and plain values, do the same as the verb of that name, and return its
results instead of printing them. Each imports its dependencies when it is called.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medcl import plugin as plugins
from medcl.errors import MedclWarning, UsageError
from medcl.io import scratch
from medcl.recipe import Recipe, given, overrides
from medcl.registry import lookup

if TYPE_CHECKING:
    from torch import nn

    from medcl.archive.index import Index
    from medcl.benchmark.scoreboard import Scoreboard
    from medcl.dense.opened import DenseStudy
    from medcl.dense.result import DenseResult
    from medcl.embeddings.bags import Bags
    from medcl.embeddings.embeddings import Embeddings
    from medcl.engine.in_memory import Source
    from medcl.export import Classified, Exported, Format
    from medcl.finetune.opened import Study
    from medcl.finetune.result import FinetuneResult
    from medcl.metrics.metrics import Kind
    from medcl.predict.batch import Predicted
    from medcl.predict.masks import PredictedMasks
    from medcl.probe.localisation import Localisation
    from medcl.probe.result import ProbeResult
    from medcl.released import Card
    from medcl.run import Run

Place = str | Path
Recording = Any
"""A recording in memory, of a type that the plugin knows; see `medcl.plugin.Plugin`, ``save``."""
RecipeLike = str | Path | Mapping[str, Any] | Recipe
"""A recipe's name, its YAML file, its sections as a mapping, or a loaded recipe."""
Settings = Sequence[str] | Mapping[str, Any]
"""``["optimizer.lr=1e-3"]`` as on the command line, or ``{"optimizer.lr": 1e-3}``."""


def index(
    archive: Place,
    out: Place,
    *,
    plugin: str,
    table: Place | Sequence[Place] | None = None,
    patient_from: str | None = None,
    key_file: Place | None = None,
    reader: Mapping[str, Any] | None = None,
    workers: int = 1,
) -> Index:
    """Index an archive: one row per item, one row per reject with its reason.

    Args:
        archive: the folder of the recordings; it is only read.
        out: the index. The same call again opens only new or changed files.
        plugin: the modality.
        table: patients, sites and labels by file, CSV or Parquet.
        patient_from: a pattern over the path with a group ``patient``.
        key_file: the secret for pseudonyms; a new one is made without it.
        reader: what the files do not say, e.g. ``{"fs": 100}``.
        workers: processes that read headers.

    Raises:
        UsageError: see `medcl.archive.index.build`.
    """
    from medcl.archive.index import Index, build

    build(
        Path(archive),
        Path(out),
        plugins.get(plugin),
        table=_paths(table) or None,
        patient_from=patient_from,
        key_file=None if key_file is None else Path(key_file),
        reader=reader,
        workers=workers,
    )
    return Index.open(Path(out))


def pretrain(
    recipe: RecipeLike,
    data: Place | Source,
    out: Place,
    *,
    patients: Sequence[Any] | None = None,
    labels: Mapping[str, Any] | None = None,
    settings: Settings = (),
    command: str = "",
) -> Run:
    """Pretrain an encoder without labels, on the training patients alone.

    Args:
        recipe: what to train.
        data: an index (``medcl index``); or samples in memory, (N, ...) or a torch data set, as the
            recipe's views take them: its sections ``prepare`` and ``dataset`` are not used then.
        out: the run's folder. The same call again resumes it.
        patients: of samples in memory, (N,) patient ids. Without them, the split is by sample; the
            run and its reports state this.
        labels: of samples in memory, name → (N,), for methods that take labels and for monitoring.
        settings: override the recipe.
        command: the command line, for the record.

    Returns:
        The run: ``run.encoder()`` is the trained encoder.

    Raises:
        UsageError: see `medcl.engine.pretrain.pretrain` and `medcl.engine.in_memory.given`.
        MedclError: if the loss or the weights stop being numbers.
    """
    from medcl.engine import in_memory
    from medcl.engine.pretrain import pretrain as on_index
    from medcl.engine.pretrain import pretrain_on

    configured = given(recipe, settings)
    if not isinstance(data, str | Path):
        return pretrain_on(
            configured, in_memory.given(data, patients, labels), Path(out), command=command
        )
    if patients is not None or labels is not None:
        raise UsageError("patients and labels go with samples in memory: an index has its own.")
    return on_index(configured, Path(data), Path(out), command=command)


def embed(
    run: Place | Run,
    data: Place | Source | Recording | Sequence[Recording] | None = None,
    *,
    out: Place | None = None,
    task: str | None = None,
    patients: Sequence[Any] | None = None,
    labels: Mapping[str, Any] | None = None,
    batch_size: int = 512,
    device: str = "auto",
    readers: int = 0,
    engine: Literal["local", "ray"] = "local",
    paths: bool = False,
) -> Embeddings:
    """Embed every sample with a run's encoder.

    Args:
        run: a finished run, or the name of a released encoder.
        data: an index; recordings (files, their names without suffix, folders, or in memory as in
            `predict`), cut into samples as those of training were; samples in memory as in
            `pretrain`; None: the index of training.
        out: the folder to store them in; up-to-date embeddings there are reused. None: in memory.
        task: of an index, embed the samples of this task (such as beats).
        patients: see `pretrain`.
        labels: see `pretrain`.
        batch_size: samples per forward pass.
        device: "cpu", "cuda", ..., or "auto".
        readers: processes that read ahead.
        engine: of an index, with ``out``: "ray" embeds on a cluster that shares the folders.
        paths: of recordings, name them in the label ``record``; a path may identify a patient.

    Raises:
        UsageError: for an unknown task or device, or a run that has not finished.
        MedclError: if a feature is not finite; names the sample.
    """
    from medcl.embeddings import embeddings
    from medcl.engine import in_memory
    from medcl.ingestion import indexed, named, saved
    from medcl.run import load_samples

    opened = _run(run)
    if data is not None and not _is_index(data):
        if engine == "ray":
            raise UsageError("engine='ray' goes with an index: index the recordings first.")
        with scratch.temporary() as folder:
            files = saved(opened.plugin, _listed(data), folder)
            if files:
                if patients is not None or labels is not None:
                    raise UsageError("patients and labels do not go with recordings.")
                with indexed(opened, [Path(file) for file in files]) as visited:
                    samples = load_samples(opened.recipe, visited.path, task=task)
                    made = embeddings.embed(
                        opened.encoder(),
                        named(samples, visited) if paths else samples,
                        batch_size=batch_size,
                        device=device,
                        workers=readers,
                    )
                if out is not None:
                    made.save(Path(out))
                return made
    if paths:
        raise UsageError("paths goes with recordings: an index has its own.")
    if engine == "ray" and out is None:
        raise UsageError("engine='ray' goes with an index and out, a folder that its workers see.")
    index = Path(data) if isinstance(data, str | Path) else None
    if (data is None or index is not None) and (patients is not None or labels is not None):
        raise UsageError("patients and labels go with samples in memory: an index has its own.")
    if data is not None and index is None:
        if task is not None or out is not None:
            raise UsageError("task and out go with an index: save what this returns instead.")
        samples = in_memory.given(data, patients, labels).samples  # type: ignore[arg-type]
    elif out is not None:
        return embeddings.embed_run(
            opened,
            index,
            Path(out),
            task=task,
            batch_size=batch_size,
            device=device,
            workers=readers,
            engine=engine,
        )
    else:
        samples = load_samples(opened.recipe, index or opened.data, task=task)
    return embeddings.embed(
        opened.encoder(), samples, batch_size=batch_size, device=device, workers=readers
    )


def embed_bags(
    source: Place | Run,
    out: Place,
    *,
    data: Place | None = None,
    encoder: str | None = None,
    recipe: RecipeLike | None = None,
    settings: Settings = (),
    task: str | None = None,
    half: bool = True,
    batch_size: int = 512,
    device: str = "auto",
    readers: int = 0,
    workers: int = 1,
    engine: Literal["local", "ray"] = "local",
    untrained: bool = False,
) -> Bags:
    """Embed every sample, into one file for each item.

    Args:
        source: a finished run; or an index, with an encoder of its plugin.
        out: the folder; several calls, also on other machines, may fill one.
        data: of a run, another index than that of training.
        encoder: of an index, the name of an encoder of its plugin.
        recipe: of an index, the recipe whose settings prepare its items.
        settings: override that recipe.
        task: embed the samples of this task.
        half: features of 16 bits instead of 32.
        batch_size: samples per forward pass.
        device: "cpu", "cuda", ..., or "auto".
        readers: processes that read ahead of each encoder.
        workers: processes that embed.
        engine: "local", or "ray" for a cluster that shares the folders.
        untrained: of an index, whether the encoder may have random weights.

    Raises:
        UsageError: if a run comes with an encoder, recipe or settings, or an index without an
            encoder; see `medcl.embeddings.bags.embed_bags`.
    """
    from medcl.embeddings import bags

    index_only = {"encoder": encoder, "recipe": recipe, "settings": settings}
    run: Run | None = None
    if isinstance(source, str | Path) and (Path(source) / "index.json").is_file():
        index = Path(source)
        configured = _of_index(index, recipe, encoder, settings)
    else:
        if extra := [name for name, value in index_only.items() if value]:
            raise UsageError(
                f"{extra[0]} goes with an index; a run has its own recipe and encoder."
            )
        run = _run(source)
        index, configured = Path(data) if data is not None else run.data, run.recipe
    return bags.embed_bags(
        configured,
        index,
        Path(out),
        run=run,
        task=task,
        half=half,
        batch_size=batch_size,
        device=device,
        readers=readers,
        workers=workers,
        engine=engine,
        untrained=untrained,
    )


def _of_index(
    index: Path, recipe: RecipeLike | None, encoder: str | None, settings: Settings
) -> Recipe:
    """The recipe to embed an index with: the given one, or the plugin's defaults."""
    from medcl.archive.index import Index

    if recipe is None and encoder is None:
        raise UsageError(
            f"{index} is an index: give --encoder (encoder=), or a --recipe that has one."
        )
    plugin = plugins.get(Index.open(index).plugin_name)
    factory = None if encoder is None else lookup(plugin.encoders, encoder, "encoder")
    plain = {
        "name": "embed",
        "plugin": plugin.name,
        "method": {"name": "simclr"},
        # tiles or windows of the size and scale that the encoder was made for, if it says so
        "prepare": getattr(factory, "prepare", {}),
        "dataset": getattr(factory, "dataset", {}),
    }
    asked = overrides(settings) if isinstance(settings, Mapping) else list(settings)
    chosen = [] if encoder is None else [f"encoder={{name: {encoder}}}"]
    start = plain if recipe is None else recipe
    return given(start, [*chosen, *asked])


def probe(
    runs: Place | Run | Sequence[Place | Run],
    *,
    data: Place | None = None,
    task: str | None = None,
    labels: Place | Sequence[Place] | None = None,
    label_column: str | Sequence[str] | None = None,
    kind: Kind | Literal["auto"] = "auto",
    classes: Sequence[str] = (),
    key_column: str | None = None,
    patient_column: str | None = None,
    out: Place | None = None,
    seed: int | None = None,
    batch_size: int = 512,
    device: str = "auto",
    command: str = "",
) -> ProbeResult:
    """Compare frozen features on test patients: pretrained, random encoder, hand-crafted.

    Args:
        runs: a finished run, or the runs of all folds of one recipe.
        data: another index; see `medcl.probe.probe.probe`.
        task: the labelled problem; None for the recipe's.
        labels: your own labels, CSV or Parquet, instead of a task's. Its columns tell whose they
            are: ``sample`` (ids), or ``key``, ``start`` and ``end`` (or ``duration``) in seconds
            for windows; ``key``, ``filename``, … for items; ``patient``, … for patients. Items and
            patients are classified by the mean features of their samples.
        label_column: the label, of the table or the index; several columns of 1 and 0 are one
            multilabel target. None: the table's only column, or the one named label.
        kind: "binary", "multiclass", "multilabel", "ordinal", "regression", or "auto".
        classes: of the label, in their order: of two, the second is the positive one.
        key_column, patient_column: of the table, if they have none of the usual names.
        out: the folder; None for RUN/probe, or next to the runs if there are several.
        seed: of inner folds, draws and resamples; None for the recipe's.
        batch_size: samples per forward pass.
        device: "cpu", "cuda", ..., or "auto".
        command: the command line, for the record.

    Raises:
        UsageError: if there is no task, no label, or the runs do not belong together.
        MedclError: if a feature is not finite, or a label is no class of the task.
    """
    from medcl.probe.own_labels import OwnLabels
    from medcl.probe.probe import probe as compare
    from medcl.run import Run

    run_list = [runs] if isinstance(runs, str | Path | Run) else list(runs)
    columns = (label_column,) if isinstance(label_column, str) else tuple(label_column or ())
    own = None
    if labels is not None or columns:
        own = OwnLabels(_paths(labels), columns, kind, tuple(classes), key_column, patient_column)
    elif key_column or patient_column or classes or kind != "auto":
        raise UsageError("kind, classes and the names of columns go with labels: give them too.")
    return compare(
        [_run(run) for run in run_list],
        data=None if data is None else Path(data),
        task=task,
        labels=own,
        out=None if out is None else Path(out),
        seed=seed,
        batch_size=batch_size,
        device=device,
        command=command,
    )


def probe_masks(
    run: Place | Run,
    task: str,
    *,
    out: Place | None = None,
    device: str = "auto",
    command: str = "",
) -> DenseResult:
    """Compare frozen dense features, pretrained and untrained, on the masks of test patients.

    Args:
        run: a finished run.
        task: of its plugin, of kind "mask".
        out: the folder of the study; None for RUN/probe-masks.
        device: "cpu", "cuda", ..., or "auto".
        command: the command line, for the record.

    Raises:
        UsageError: if the task has no masks, or the encoder no features of positions.
    """
    from medcl.dense.probe import probe as compare

    place = None if out is None else Path(out)
    return compare(_run(run), task, out=place, device=device, command=command)


def probe_localisation(
    run: Place | Run, *, data: Place | None = None, device: str = "auto"
) -> Localisation:
    """Without labels: how well the features find the same place in another scan or recording.

    Args:
        run: a finished run.
        data: another index; None for the run's own.
        device: "cpu", "cuda", ..., or "auto".

    Raises:
        UsageError: if the samples have no locations; see `medcl.probe.localisation.localise`.
    """
    from medcl.probe.localisation import localise

    return localise(_run(run), data=None if data is None else Path(data), device=device)


def finetune(
    source: Place,
    out: Place,
    *,
    data: Place | None = None,
    recipe: RecipeLike | None = None,
    labels: Place | Sequence[Place] | None = None,
    label_column: str | None = None,
    key_column: str | None = None,
    patient_column: str | None = None,
    patient_from: str | None = None,
    index: Place | None = None,
    split: Place | None = None,
    folds: int | None = None,
    repeats: int | None = None,
    imbalance: float | None = None,
    instances: bool = False,
    explain: int = 0,
    workers: int = 1,
    device: str = "auto",
    settings: Settings = (),
    command: str = "",
) -> FinetuneResult | DenseResult:
    """Train with labels or masks, in folds, and evaluate on the test patients.

    Args:
        source: an index, a pretrained run, the name of a released encoder, or a folder of files,
            which is indexed first.
        out: the study's folder. The same call again resumes it.
        data: of a run or released encoder: another index than its own, or a folder of files.
        recipe: one with a classifier; None for a run: LP-FT.
        labels: CSV or Parquet, one or several, with a column ``key`` (an item's path, or a
            patient); None: the index's own.
        label_column: the column to learn: ``finetune.label``, in place of the recipe's task.
        key_column, patient_column: of the tables, if they have none of the usual names.
        patient_from: of a folder, see `medcl.archive.assign.load`.
        index: of a folder, where its index goes; None: OUT/index.
        split: such a table with a column ``split``: train, validation or test.
        folds: number of folds of cross-validation over patients.
        repeats: of all folds.
        imbalance: negatives for each positive patient to keep in training.
        instances: store the contribution of each instance of a bag.
        explain: draw this many test bags of each class into OUT/explained; implies ``instances``.
            A drawing that fails gives a warning.
        workers: folds trained in parallel.
        device: "cpu", "cuda", ..., or "auto".
        settings: override the recipe; of a folder, ``reader.key=value`` too.
        command: the command line, for the record.

    Raises:
        UsageError: see `medcl.finetune.finetune.opened` and `medcl.finetune.finetune.finetune`.
        MedclError: for labels of the wrong kind, or a training that failed.
    """
    from medcl.finetune import archived
    from medcl.finetune import explain as explaining
    from medcl.finetune import finetune as tuning

    if isinstance(settings, Mapping):
        settings = overrides(settings)
    chosen, reader = archived.parted(settings)
    place = Path(source)
    other = None if data is None else Path(data)
    if other is not None and archived.is_archive(other):
        run = _run(place)
        other, _ = archived.indexed(
            other,
            Path(out) / archived.INDEX if index is None else Path(index),
            run.recipe,
            reader,
            patient_from=patient_from,
            workers=workers,
        )
    elif archived.is_archive(place):
        place, _ = archived.indexed(
            place,
            Path(out) / archived.INDEX if index is None else Path(index),
            recipe,
            reader,
            patient_from=patient_from,
            workers=workers,
        )
    elif reader or patient_from or index is not None:
        raise UsageError(
            "--patient-from (patient_from=, index=) and -s reader.… are for a folder of files; an "
            "index was read already: give them to medcl index."
        )
    chosen += [f"finetune.folds={folds}"] * (folds is not None)
    chosen += [f"finetune.repeats={repeats}"] * (repeats is not None)
    if label_column is not None:  # in place of the recipe's task too
        chosen += [f"finetune.label={label_column}", "finetune.task=null"]
    opened = tuning.opened(place, recipe, chosen, data=other)
    if tuning.learns_masks(opened.recipe):
        from medcl.dense.study import segment

        of_labels = {
            "labels": labels,
            "label_column": label_column,
            "key_column": key_column,
            "patient_column": patient_column,
            "imbalance": imbalance,
            "instances": instances,
            "explain": explain,
        }
        if needless := [name for name, value in of_labels.items() if value]:
            raise UsageError(
                f"{', '.join(needless)}: for labels; masks lie beside their images. Leave it out."
            )
        return segment(
            opened,
            Path(out),
            split=None if split is None else Path(split),
            workers=workers,
            device=device,
            command=command,
        )
    result = tuning.finetune(
        opened,
        Path(out),
        labels=_paths(labels) or None,
        split=None if split is None else Path(split),
        imbalance=imbalance,
        instances=instances or explain > 0,
        key_column=key_column,
        patient_column=patient_column,
        workers=workers,
        device=device,
        command=command,
    )
    if explain:
        _, problems = explaining.explain(opened, Path(out), explain)
        for problem in problems:
            warnings.warn(problem, MedclWarning, stacklevel=2)
    return result


def predict(
    model: Place | Run | Study,
    records: Place | Recording | Sequence[Place | Recording],
    out: Place,
    *,
    also: Place | Sequence[Place] = (),
    task: str | None = None,
    fs: float | None = None,
    settings: Settings = (),
    embeddings: bool = True,
    paths: bool = False,
    key_file: Place | None = None,
    workers: int | None = None,
    engine: Literal["local", "ray"] = "local",
    batch_size: int = 32,
    device: str = "auto",
) -> Predicted:
    """Class probabilities of new recordings; by a run also embeddings and anomaly scores.

    Args:
        model: a finished run, a study of `finetune`, or one of its folds (``STUDY/folds/r0f1``).
        records: recordings (files, or their names without suffix) and folders; or one index; or
            recordings in memory that the plugin knows (biosignals: ``mne.io.Raw``, tables of pandas
            and polars, arrays of xarray), see `medcl.plugin.Plugin`.
        out: the table, ending in ``.parquet``.
        also: of a study: other studies of the same target, such as of other encoders, for the mean
            of all their probabilities.
        task: of a run, predict this task's class probabilities for its samples; or a label of your
            own that `probe` was given a table of.
        fs: sampling rate in Hz, for recordings without one.
        settings: ``dataset.key=value`` overrides the recipe; ``reader.key=value`` gives what the
            files lack.
        embeddings: store the embeddings too.
        paths: write the recordings' paths. A path may identify a patient.
        key_file: secret for pseudonyms, if the run's index had one.
        workers: processes; None for all cores.
        engine: where recordings are read and prepared: "local", or "ray" for a cluster that shares
            the folder of ``out``.
        batch_size: samples per forward pass.
        device: "cpu", "cuda", ..., or "auto".

    Raises:
        UsageError: for paths that do not exist, an unknown task, or objects that the plugin does
            not know.
        MedclError: if no recording can be used; gives the reason.
    """
    from medcl.doctor import cores
    from medcl.ingestion import saved
    from medcl.predict.batch import predict as on_files
    from medcl.predict.opening import opened

    assignments = overrides(settings) if isinstance(settings, Mapping) else list(settings)
    if fs is not None:
        assignments = [f"reader.fs={fs:g}", *assignments]
    trained = opened(Path(model)) if isinstance(model, str | Path) else model
    recordings = _listed(records)
    with scratch.temporary() as folder:
        files = saved(trained.plugin, recordings, folder)
        if files is None:
            raise UsageError(
                f"The plugin '{trained.plugin.name}' knows no recording of this type: give files, "
                "folders or an index."
            )
        return on_files(
            trained,
            files,
            Path(out),
            also=[opened(one) for one in _paths(also)],
            task=task,
            settings=assignments,
            embeddings=embeddings,
            paths=paths,
            key_file=None if key_file is None else Path(key_file),
            workers=workers or cores(),
            engine=engine,
            batch_size=batch_size,
            device=device,
        )


def follow(
    model: Place | Run | Study,
    source: Place,
    out: Place | None = None,
    *,
    fs: float | None = None,
    columns: Sequence[str] | None = None,
    format: Literal["csv", "f32"] = "csv",
    wait: float = 10.0,
    task: str | None = None,
    embeddings: bool = True,
    device: str = "auto",
) -> int:
    """Predict a signal as it arrives, a JSON line for each window; return the number of lines.

    Args:
        model: a finished run, or a study; all its folds predict, as the patient is unknown.
        source: a file that may still grow, or "-" for standard input.
        out: lines are appended to it; None for standard output.
        fs: samples per second of each channel.
        columns: the channels; see `medcl.predict.streaming.follow`.
        format: "csv" or "f32".
        wait: seconds without growth after which a file ends.
        task: of a run, predict this task's class probabilities.
        embeddings: write the embeddings too.
        device: "cpu", "cuda", ..., or "auto".

    Raises:
        UsageError: if the plugin cannot stream, or the sampling rate or the channels are not given.
    """
    from medcl.predict.opening import opened
    from medcl.predict.streaming import follow as predict_stream

    return predict_stream(
        opened(Path(model)) if isinstance(model, str | Path) else model,
        Path(source),
        None if out is None else Path(out),
        fs=fs,
        columns=columns,
        format=format,
        wait=wait,
        task=task,
        embeddings=embeddings,
        device=device,
    )


def predict_masks(
    study: Place | DenseStudy,
    images: Place | Sequence[Place],
    out: Place,
    *,
    to: str = "nifti",
    paths: bool = False,
    key_file: Place | None = None,
    workers: int | None = None,
    device: str = "auto",
) -> PredictedMasks:
    """Masks of new images by a study of `finetune` with masks, on the grids of their own files.

    Args:
        study: the study, or its folder.
        images: files and folders; or one index.
        out: the folder to write to.
        to: a format of the plugin; of ct "nifti" or "dicom-seg".
        paths: name masks after their images' paths, which may identify a patient.
        key_file: secret for pseudonyms, if the study's index had one.
        workers: processes; None for all cores.
        device: "cpu", "cuda", ..., or "auto".

    Raises:
        UsageError: for paths that do not exist, or an unknown format.
        MedclError: if no image can be used; gives the reason.
    """
    from medcl.dense.opened import DenseStudy
    from medcl.doctor import cores
    from medcl.predict.masks import predict as on_images

    places = [images] if isinstance(images, str | Path) else list(images)
    return on_images(
        DenseStudy.open(Path(study)) if isinstance(study, str | Path) else study,
        [Path(place) for place in places],
        Path(out),
        to=to,
        paths=paths,
        key_file=None if key_file is None else Path(key_file),
        workers=workers or cores(),
        device=device,
    )


def benchmark(
    name: str,
    data: Place,
    out: Place,
    encoders: Place | Run | Sequence[Place | Run] = (),
    *,
    problems: Sequence[str] = (),
    fractions: Sequence[float] = (),
    fit: Sequence[int] = (),
    judge: Sequence[int] = (),
    supervised: bool = False,
    heads: Sequence[str] = (),
    resamples: int = 1000,
    device: str = "auto",
    workers: int = 1,
    command: str = "",
) -> Scoreboard:
    """Measure encoders on a public set in its official folds, beside the features to beat.

    Args:
        name: of the set: "ptbxl", "cinc2017", …
        data: the folder into which it was unpacked.
        out: the scoreboard's folder; the same call resumes it.
        encoders: finished runs, released encoders, or folders of either; none: the set's own
            untrained encoder.
        problems: of the set, such as "superclass"; none: its first.
        fractions: of labelled training patients; none: 0.01, 0.1 and 1, of heads 1.
        fit, judge: folds to fit and to test on, in place of the official ones.
        supervised: also train each network with labels alone, which takes minutes each time.
        heads: of a set of bags, such as "abmil"; none: all that it names.
        resamples: of test patients, for intervals.
        device: "cpu", "cuda", ..., or "auto".
        workers: processes that read and prepare.
        command: the command line, for the record.

    Raises:
        UsageError: for an unknown set, problem or fold, or a folder that does not hold the set.
        MedclError: if recordings of the set cannot be read.
    """
    from medcl.benchmark.benchmark import benchmark as measure
    from medcl.benchmark.encoders import by_name, found
    from medcl.run import Run

    several = [encoders] if isinstance(encoders, str | Path | Run) else list(encoders)
    return measure(
        name,
        Path(data),
        Path(out),
        by_name([run for place in several for run in found(place)]),
        problems=problems,
        fractions=fractions,
        fit=fit,
        judge=judge,
        supervised=supervised,
        heads=heads,
        resamples=resamples,
        device=device,
        workers=workers,
        command=command,
    )


def encoders() -> list[Card]:
    """The released encoders of all plugins: data, licences, sizes, figures and limits of each.

    Raises:
        MedclError: if one is damaged.
    """
    from medcl import released

    return released.cards()


def release(
    run: Place | Run,
    out: Place,
    card: Place | Mapping[str, Any],
    boards: Sequence[Place] = (),
) -> Card:
    """Write a run's encoder with its card into a new folder, to be shipped in a plugin.

    Args:
        run: a finished run.
        out: the folder to create; its name is the encoder's.
        card: ``about``, ``data``, ``licence`` and ``limits``; a mapping or a YAML file.
        boards: folders of `benchmark` with this run among their rows.

    Raises:
        UsageError: for an existing folder, a card that lacks a field, or another board.
    """
    from medcl.export import release as write

    told = Path(card) if isinstance(card, str | Path) else card
    return write(_run(run), Path(out), told, [Path(board) for board in boards])


def push(folder: Place, name: str, *, public: bool = False) -> str:
    """Upload an exported encoder to the Hugging Face Hub, and return the commit's address.

    Args:
        folder: of `export_encoder`; only files of its manifest are sent.
        name: of the repository: ``OWNER/NAME``.
        public: whether a new repository can be read by everybody.

    Raises:
        UsageError: if it is no exported encoder, or huggingface_hub is missing.
        MedclError: if the Hub refuses, or cannot be reached.
    """
    from medcl.export import push as send

    return send(Path(folder), name, public=public)


def pull(name: str, out: Place, *, revision: str | None = None) -> Path:
    """Download an encoder that `push` sent into a new folder, checked; none of its code is run.

    Raises:
        UsageError: if ``out`` exists, or huggingface_hub is missing.
        MedclError: if it is not an encoder of medcl, is damaged, or the Hub cannot be reached.
    """
    from medcl.export import pull as fetch

    return fetch(name, Path(out), revision=revision)


def load_encoder(path: Place) -> nn.Module:
    """The trained encoder of a run, an exported folder, or the name of a released one
    (`encoders`), in evaluation mode: (B, ...) → (B, D).

    Raises:
        UsageError: if it is neither.
        MedclError: if the weights are damaged, or not those of the encoder.
    """
    from medcl.export import load_encoder as load

    return load(path)


def export_encoder(run: Place | Run, out: Place, *, to: Format = "safetensors") -> Exported:
    """Write a run's encoder into a new folder, checked by loading it back.

    Args:
        run: a finished run.
        out: the folder to create.
        to: "safetensors", "onnx", "torchscript", "huggingface-folder" or "monai-bundle".

    Raises:
        UsageError: for an unknown format, an existing folder, or a missing package.
        MedclError: if the encoder cannot be written in that format, or its outputs differ.
    """
    from medcl.export import export

    return export(_run(run), Path(out), to=to)


def export_classifier(
    model: Place | Run | Study, out: Place, *, to: Format = "onnx", task: str | None = None
) -> Classified:
    """Write what classifies into a new folder, checked against ``predict`` before it is kept.

    Args:
        model: a study, for the mean of its folds; one of its folds; or a run with ``task``.
        out: the folder to create.
        to: "onnx", "torchscript", or "safetensors" for `load_classifier`.
        task: of a run, the task or own label that was probed.

    Raises:
        UsageError: for another format, an existing folder, or a missing package.
        MedclError: if it cannot be written in that format, its outputs differ, or the index, whose
            samples it is checked on, is missing.
    """
    from medcl.export import export_classifier as write
    from medcl.predict.opening import opened

    source = opened(Path(model)) if isinstance(model, str | Path) else model
    return write(source, Path(out), to=to, task=task)


def export_as(model: Place | Run | DenseStudy, out: Place, *, to: str) -> Path:
    """Write a run, or a study of masks, in a format of its plugin; return the folder.

    Args:
        model: a finished run, or a study of masks.
        out: the folder to create.
        to: the format, such as "nnunet" of the plugin ct.

    Raises:
        UsageError: if the plugin has no such format, or ``out`` exists.
    """
    from medcl.dense.kind import is_dense
    from medcl.dense.opened import DenseStudy

    source = model
    if isinstance(source, str | Path):
        source = DenseStudy.open(Path(source)) if is_dense(Path(source)) else _run(source)
    path: Path = lookup(source.plugin.exports, to, "format")(source, Path(out))
    return path


def load_classifier(path: Place) -> nn.Module:
    """A classifier exported as safetensors, in evaluation mode: (B, ...) → (B, C) probabilities.

    Raises:
        UsageError: if the folder holds none.
        MedclError: if the weights are damaged, or not those of the classifier.
    """
    from medcl.export import load_classifier as load

    return load(path)


def _paths(places: Place | Sequence[Place] | None) -> tuple[Path, ...]:
    if places is None:
        return ()
    several = [places] if isinstance(places, str | Path) else places
    return tuple(Path(place) for place in several)


def _is_index(data: object) -> bool:
    return isinstance(data, str | Path) and (
        (Path(data) / "index.json").is_file() or (Path(data) / "private").is_dir()
    )


def _listed(records: object) -> list[object]:
    """One recording, or several: only lists, tuples, sets and iterators are taken for several."""
    several = isinstance(records, list | tuple | set | frozenset | Iterator)
    return list(records) if several else [records]  # type: ignore[call-overload]


def _run(run: Place | Run) -> Run:
    from medcl.run import Run

    return Run.open(Path(run)) if isinstance(run, str | Path) else run
