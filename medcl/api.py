"""What ``import medcl`` gives: the verbs of the command line as functions.

They take paths, names and plain values, do what the verb of the same name does, and return what it
found instead of printing it. Each imports what it needs when it is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medcl import plugin as plugins
from medcl.errors import UsageError
from medcl.recipe import Recipe, given, overrides, parse
from medcl.registry import lookup

if TYPE_CHECKING:
    from torch import nn

    from medcl.embeddings.bags import Bags
    from medcl.embeddings.embeddings import Embeddings
    from medcl.engine.in_memory import Source
    from medcl.finetune.opened import Study
    from medcl.finetune.result import FinetuneResult
    from medcl.predict.batch import Predicted
    from medcl.probe.result import ProbeResult
    from medcl.run import Run

Place = str | Path
RecipeLike = str | Path | Mapping[str, Any] | Recipe
"""A recipe's name, its YAML file, its sections as a mapping, or a recipe that was read."""
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
        out: the run's folder. The same again resumes it.
        patients: of samples in memory, (N,) whose each is. Without, the split is by sample, which
            the run says wherever it is shown.
        labels: of samples in memory, name → (N,), for methods that take labels and for the monitor.
        settings: laid over the recipe.
        command: how this was called, for the record.

    Returns:
        The run: ``run.encoder()`` is what was trained.

    Raises:
        UsageError: see `medcl.engine.pretrain.pretrain` and `medcl.engine.in_memory.given`.
        MedclError: if the loss or the weights stop being numbers.
    """
    from medcl.engine import in_memory
    from medcl.engine.pretrain import pretrain as on_index
    from medcl.engine.pretrain import pretrain_on

    chosen = given(recipe, settings)
    if not isinstance(data, str | Path):
        return pretrain_on(
            chosen, in_memory.given(data, patients, labels), Path(out), command=command
        )
    if patients is not None or labels is not None:
        raise UsageError("patients and labels go with samples in memory: an index has its own.")
    return on_index(chosen, Path(data), Path(out), command=command)


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
        data: an index, or samples in memory as of `pretrain`; None: the index it was trained on.
        out: the folder to keep them in; what is there and up to date is taken. None: in memory.
        task: embed the samples of this task (beats, say). Of an index.
        patients: see `pretrain`.
        labels: see `pretrain`.
        batch_size: samples a forward pass.
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
        data: of a run, another index than it was trained on.
        encoder: of an index, the name of an encoder of its plugin.
        recipe: of an index, how its items are prepared.
        settings: laid over that.
        task: embed the samples of this task.
        half: features of 16 bits instead of 32.
        batch_size: samples a forward pass.
        device: "cpu", "cuda", ..., or "auto".
        readers: processes that read ahead of each encoder.
        workers: processes that embed.
        engine: "local", or "ray" for a cluster that shares the folders.
        untrained: of an index, whether the encoder may have random weights.

    Raises:
        UsageError: if something of an index is given to a run, or an index comes without an
            encoder; see `medcl.embeddings.bags.embed_bags`.
    """
    from medcl.embeddings import bags

    asked = {"encoder": encoder, "recipe": recipe, "settings": settings}
    run: Run | None = None
    if isinstance(source, str | Path) and (Path(source) / "index.json").is_file():
        where = Path(source)
        chosen = _of_index(where, recipe, encoder, settings)
    else:
        if extra := [name for name, value in asked.items() if value]:
            raise UsageError(
                f"{extra[0]} goes with an index; a run has its own recipe and encoder."
            )
        run = _run(source)
        where, chosen = Path(data) if data is not None else run.data, run.recipe
    return bags.embed_bags(
        chosen,
        where,
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
    """The recipe to embed an index with: a given one, or the plugin's defaults."""
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
    start = parse(plain, [f"encoder={{name: {encoder}}}"]) if recipe is None else given(recipe)
    if recipe is not None and encoder is not None:
        start = given(start, [f"encoder={{name: {encoder}}}"])
    return given(start, settings)


def probe(
    runs: Place | Run | Sequence[Place | Run],
    *,
    data: Place | None = None,
    task: str | None = None,
    out: Place | None = None,
    device: str = "auto",
    command: str = "",
) -> ProbeResult:
    """Compare frozen features on unseen patients: pretrained, random encoder, hand-crafted.

    Args:
        runs: a finished run, or the runs of all folds of one recipe.
        data: another index; see `medcl.probe.probe.probe`.
        task: the labelled problem; None for the recipe's.
        out: the folder; None for RUN/probe, or beside the runs if there are several.
        device: "cpu", "cuda", ..., or "auto".
        command: how this was called, for the record.

    Raises:
        UsageError: if there is no task, no label, or the runs do not belong together.
        MedclError: if a feature is not finite, or a label is none of the task's.
    """
    from medcl.probe.probe import probe as compare
    from medcl.run import Run

    several = [runs] if isinstance(runs, str | Path | Run) else list(runs)
    return compare(
        [_run(run) for run in several],
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
) -> FinetuneResult:
    """Train with labels, in folds, and measure on patients who were not trained on.

    Args:
        source: an index, or a pretrained run.
        out: the study's folder. The same again resumes it.
        recipe: one with a classifier; of a run, LP-FT without.
        labels: CSV or Parquet with a column ``key`` (an item's path, or a patient); None: the
            index's own.
        split: such a table whose column ``split`` says train, validation or test.
        folds: cross-validation over patients.
        repeats: of all folds.
        instances: write down what each instance of a bag counted; `medcl.finetune.explain` draws.
        workers: folds trained at once.
        device: "cpu", "cuda", ..., or "auto".
        settings: laid over the recipe.
        command: how this was called, for the record.

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
    return tuning.finetune(
        tuning.opened(Path(source), recipe, settings),
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
        task: of a run, give this task's class probabilities, for its samples.
        fs: samples a second, of recordings that do not say it.
        settings: ``dataset.key=value`` over the recipe's; ``reader.key=value``, what the files do
            not say.
        embeddings: keep the embeddings too.
        paths: name the recordings. A path may identify a person.
        key_file: secret for pseudonyms, if the run's index had one.
        workers: processes; None for all cores.
        batch_size: samples a forward pass.
        device: "cpu", "cuda", ..., or "auto".

    Raises:
        UsageError: for paths that do not exist, or an unknown task.
        MedclError: if no recording can be used; says why.
    """
    from medcl.doctor import cores
    from medcl.predict.batch import predict as on_files
    from medcl.predict.study_predictor import opened

    words = overrides(settings) if isinstance(settings, Mapping) else list(settings)
    if fs is not None:
        words = [f"reader.fs={fs:g}", *words]
    several = [records] if isinstance(records, str | Path) else list(records)
    return on_files(
        opened(Path(model)) if isinstance(model, str | Path) else model,
        [Path(record) for record in several],
        Path(out),
        task=task,
        settings=words,
        embeddings=embeddings,
        paths=paths,
        key_file=None if key_file is None else Path(key_file),
        workers=workers or cores(),
        batch_size=batch_size,
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
