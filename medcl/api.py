"""The functions of ``import medcl``: the verbs of the command line.

They take paths, names and plain values, do the same as the verb of that name, and return its
results instead of printing them. Each imports its dependencies when it is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medcl import plugin as plugins
from medcl.errors import UsageError
from medcl.recipe import Recipe, given, overrides
from medcl.registry import lookup

if TYPE_CHECKING:
    from torch import nn

    from medcl.dense.opened import DenseStudy
    from medcl.dense.result import DenseResult
    from medcl.embeddings.bags import Bags
    from medcl.embeddings.embeddings import Embeddings
    from medcl.engine.in_memory import Source
    from medcl.finetune.opened import Study
    from medcl.finetune.result import FinetuneResult
    from medcl.predict.batch import Predicted
    from medcl.predict.masks import PredictedMasks
    from medcl.probe.result import ProbeResult
    from medcl.run import Run

Place = str | Path
RecipeLike = str | Path | Mapping[str, Any] | Recipe
"""A recipe's name, its YAML file, its sections as a mapping, or a loaded recipe."""
Settings = Sequence[str] | Mapping[str, Any]
"""``["optimizer.lr=1e-3"]`` as on the command line, or ``{"optimizer.lr": 1e-3}``."""


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
    data: Place | Source | None = None,
    *,
    out: Place | None = None,
    task: str | None = None,
    patients: Sequence[Any] | None = None,
    labels: Mapping[str, Any] | None = None,
    batch_size: int = 512,
    device: str = "auto",
    readers: int = 0,
) -> Embeddings:
    """Embed every sample with a run's encoder.

    Args:
        run: a finished run.
        data: an index, or samples in memory as in `pretrain`; None: the index of training.
        out: the folder to store them in; up-to-date embeddings there are reused. None: in memory.
        task: of an index, embed the samples of this task (such as beats).
        patients: see `pretrain`.
        labels: see `pretrain`.
        batch_size: samples per forward pass.
        device: "cpu", "cuda", ..., or "auto".
        readers: processes that read ahead.

    Raises:
        UsageError: for an unknown task or device, or a run that has not finished.
        MedclError: if a feature is not finite; names the sample.
    """
    from medcl.embeddings import embeddings
    from medcl.engine import in_memory
    from medcl.run import load_samples

    opened = _run(run)
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
    plain = {
        "name": "embed",
        "plugin": plugin.name,
        "method": {"name": "simclr"},
        # tiles of the size and scale that the encoder was made for, if it says so
        "prepare": getattr(lookup(plugin.encoders, str(encoder), "encoder"), "prepare", {})
        if encoder is not None
        else {},
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
    out: Place | None = None,
    device: str = "auto",
    command: str = "",
) -> ProbeResult:
    """Compare frozen features on test patients: pretrained, random encoder, hand-crafted.

    Args:
        runs: a finished run, or the runs of all folds of one recipe.
        data: another index; see `medcl.probe.probe.probe`.
        task: the labelled problem; None for the recipe's.
        out: the folder; None for RUN/probe, or next to the runs if there are several.
        device: "cpu", "cuda", ..., or "auto".
        command: the command line, for the record.

    Raises:
        UsageError: if there is no task, no label, or the runs do not belong together.
        MedclError: if a feature is not finite, or a label is no class of the task.
    """
    from medcl.probe.probe import probe as compare
    from medcl.run import Run

    run_list = [runs] if isinstance(runs, str | Path | Run) else list(runs)
    return compare(
        [_run(run) for run in run_list],
        data=None if data is None else Path(data),
        task=task,
        out=None if out is None else Path(out),
        device=device,
        command=command,
    )


def finetune(
    source: Place,
    out: Place,
    *,
    recipe: RecipeLike | None = None,
    labels: Place | None = None,
    split: Place | None = None,
    folds: int | None = None,
    repeats: int | None = None,
    instances: bool = False,
    workers: int = 1,
    device: str = "auto",
    settings: Settings = (),
    command: str = "",
) -> FinetuneResult | DenseResult:
    """Train with labels or masks, in folds, and evaluate on the test patients.

    Args:
        source: an index, or a pretrained run.
        out: the study's folder. The same call again resumes it.
        recipe: one with a classifier; None for a run: LP-FT.
        labels: CSV or Parquet with a column ``key`` (an item's path, or a patient); None: the
            index's own.
        split: such a table with a column ``split``: train, validation or test.
        folds: number of folds of cross-validation over patients.
        repeats: of all folds.
        instances: store the contribution of each instance of a bag; `medcl.finetune.explain` draws
            it.
        workers: folds trained in parallel.
        device: "cpu", "cuda", ..., or "auto".
        settings: override the recipe.
        command: the command line, for the record.

    Raises:
        UsageError: see `medcl.finetune.finetune.opened` and `medcl.finetune.finetune.finetune`.
        MedclError: for labels of the wrong kind, or a training that failed.
    """
    from medcl.finetune import finetune as tuning

    if isinstance(settings, Mapping):
        settings = overrides(settings)
    settings = [
        *settings,
        *([f"finetune.folds={folds}"] if folds is not None else []),
        *([f"finetune.repeats={repeats}"] if repeats is not None else []),
    ]
    opened = tuning.opened(Path(source), recipe, settings)
    if tuning.learns_masks(opened.recipe):
        from medcl.dense.study import segment

        if labels is not None or instances:
            raise UsageError("Masks lie beside their images: leave out labels and instances.")
        return segment(
            opened,
            Path(out),
            split=None if split is None else Path(split),
            workers=workers,
            device=device,
            command=command,
        )
    return tuning.finetune(
        opened,
        Path(out),
        labels=None if labels is None else Path(labels),
        split=None if split is None else Path(split),
        instances=instances,
        workers=workers,
        device=device,
        command=command,
    )


def predict(
    model: Place | Run | Study,
    records: Place | Sequence[Place],
    out: Place,
    *,
    task: str | None = None,
    fs: float | None = None,
    settings: Settings = (),
    embeddings: bool = True,
    paths: bool = False,
    key_file: Place | None = None,
    workers: int | None = None,
    batch_size: int = 32,
    device: str = "auto",
) -> Predicted:
    """Class probabilities of new recordings; by a run also embeddings and anomaly scores.

    Args:
        model: a finished run, a study of `finetune`, or one of its folds (``STUDY/folds/r0f1``).
        records: recordings (files, or their names without suffix) and folders; or one index.
        out: the table, ending in ``.parquet``.
        task: of a run, predict this task's class probabilities for its samples.
        fs: sampling rate in Hz, for recordings without one.
        settings: ``dataset.key=value`` overrides the recipe; ``reader.key=value`` gives what the
            files lack.
        embeddings: store the embeddings too.
        paths: write the recordings' paths. A path may identify a patient.
        key_file: secret for pseudonyms, if the run's index had one.
        workers: processes; None for all cores.
        batch_size: samples per forward pass.
        device: "cpu", "cuda", ..., or "auto".

    Raises:
        UsageError: for paths that do not exist, or an unknown task.
        MedclError: if no recording can be used; gives the reason.
    """
    from medcl.doctor import cores
    from medcl.predict.batch import predict as on_files
    from medcl.predict.study_predictor import opened

    assignments = overrides(settings) if isinstance(settings, Mapping) else list(settings)
    if fs is not None:
        assignments = [f"reader.fs={fs:g}", *assignments]
    recordings = [records] if isinstance(records, str | Path) else list(records)
    return on_files(
        opened(Path(model)) if isinstance(model, str | Path) else model,
        [Path(record) for record in recordings],
        Path(out),
        task=task,
        settings=assignments,
        embeddings=embeddings,
        paths=paths,
        key_file=None if key_file is None else Path(key_file),
        workers=workers or cores(),
        batch_size=batch_size,
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


def load_encoder(path: Place) -> nn.Module:
    """The trained encoder of a run or an exported folder, in evaluation mode: (B, ...) → (B, D).

    Raises:
        UsageError: if it is neither.
        MedclError: if the weights are damaged, or not those of the encoder.
    """
    from medcl.export import load_encoder as load

    return load(path)


def _run(run: Place | Run) -> Run:
    from medcl.run import Run

    return Run.open(Path(run)) if isinstance(run, str | Path) else run
