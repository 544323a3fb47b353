"""Pretraining, from top to bottom: samples → split → method → fit → a run directory."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import polars as pl
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from safetensors.torch import save_file

from medcl import checkpoints, manifest
from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.archive import outcomes
from medcl.archive.clinical import labels_among
from medcl.archive.index import Index
from medcl.archive.outcomes import Outcome
from medcl.archive.splits import split
from medcl.engine import checkpointing, run_manifest
from medcl.engine.batchnorm import SyncLayers
from medcl.engine.data import Selection, check_fills, select
from medcl.engine.in_memory import Given
from medcl.engine.journal import Journal
from medcl.engine.module import Pretraining
from medcl.engine.online_evaluation import OnlineEvaluation
from medcl.engine.show import Show, say, summary
from medcl.errors import UsageError
from medcl.methods.contract import Method
from medcl.plugin import Samples
from medcl.private import write_recipe
from medcl.recipe import Recipe
from medcl.registry import did_you_mean, resolve
from medcl.run import Run, build_encoder, load_samples, prepared, samples_of
from medcl.seeds import MODEL, derive

NO_PATIENTS = (
    "It is not known which patient a sample is of: the split is by sample, so that the samples of "
    "one patient may be on both sides, and no figure of this run holds for new patients."
)
"""What a reader must know of a run on samples in memory that came without patients."""


def pretrain(recipe: Recipe, data: Path, out: Path, *, command: str = "") -> Run:
    """Train the encoder of ``recipe`` on the training patients of index ``data``, into ``out``.

    Run it again and it carries on: a finished run is returned as it is, a broken-off one continues
    from its last checkpoint and ends with the same weights and curves, bit for bit on a CPU with
    the same number of threads. The split is drawn once, when the run begins.

    Raises:
        UsageError: if ``out`` holds a run of another recipe or other data, or is being trained into
            by another process; if the index changed since the run began; if there are fewer
            training samples than a batch; if the machine cannot do what ``trainer`` asks; if
            test patients are learnt from too, and the clinical table holds labels.
        MedclError: if the loss or the weights stop being numbers.
        SystemExit: in every process but the first of a distributed run, once it is trained.
    """
    run = Run(out, recipe)
    if _done(run, data):
        return run
    if recipe.split.pretrain == "all":
        _check_table(recipe, data)
    items = prepared(recipe, data, workers=_preparing(recipe))
    for note in (items.left_out(), items.noticed()):
        if note and run_manifest.is_first_process():
            say(note)
    index = Index.open(data)
    became = outcomes.table(index, run.plugin, recipe.prepare, items.rejects)
    return _train(run, samples_of(recipe, items), index.items, data, command, became=became)


def pretrain_on(recipe: Recipe, given: Given, out: Path, *, command: str = "") -> Run:
    """Train the encoder of ``recipe`` on samples in memory, into ``out``; see `pretrain`.

    The recipe's sections ``prepare`` and ``dataset`` are not used: the samples are taken as its
    views and its encoder take them. Without patients the split is by sample, and the run says so.

    Args:
        recipe: what to train.
        given: see `medcl.engine.in_memory.given`.
        out: the run's folder; the same again goes on where it stopped.
        command: how this was called, for the record.

    Raises:
        UsageError: as `pretrain`; and if the method needs to know the patients, and they are not.
    """
    run = Run(out, recipe)
    if _done(run, None):
        return run
    return _train(run, given.samples, given.items, None, command, known=given.patients_known)


def _done(run: Run, data: Path | None) -> bool:
    """Whether the folder holds this very run, finished."""
    run.recipe.part("method")  # a recipe that only classifies is refused before anything is made
    run_manifest.check_same(run, data)
    if not run_manifest.finished(run):
        return False
    say(f"{run.path} is done: nothing to do.")
    return True


def _train(
    run: Run,
    samples: Samples,
    items: pl.DataFrame,
    data: Path | None,
    command: str,
    *,
    known: bool = True,
    became: Sequence[Outcome] = (),
) -> Run:
    """Split, train and write; ``items`` are what the split is drawn from."""
    recipe, out = run.recipe, run.path
    everyone = recipe.split.pretrain == "all"
    parts = run.split() if run_manifest.begun(run) else split(items, **recipe.split.drawn())
    sites = dict(items.select("id", "site").iter_rows())
    selection = select(samples, parts, _label(recipe), sites, everyone=everyone)
    run_manifest.check_same_samples(run, selection, parts)
    alone = _alone(selection, parts)
    if alone and run_manifest.is_first_process():
        warnings.warn(alone, stacklevel=2)
    check_fills(selection, recipe.trainer.batch_size, recipe.trainer.devices * recipe.trainer.nodes)
    module = build(recipe, selection)
    if not known:
        _check_partners(module.method)
        if run_manifest.is_first_process():
            say(NO_PATIENTS)
    journal, saving = Journal(out), checkpointing.Checkpoints(out / "checkpoints")
    monitors = OnlineEvaluation(
        recipe.monitor, selection, _labelled(recipe, data, selection, parts)
    )
    with quiet_lightning():
        trainer = _trainer(
            recipe, [checkpointing.Guard(), monitors, journal, Show(journal), saving]
        )
    with run_manifest.alone(run):
        if run_manifest.is_first_process():
            run_manifest.check_same(run, data)  # another may have begun meanwhile
            run_manifest.check_same_samples(run, selection, parts)
            write_recipe(out, recipe)
            _write_split(out / "split.parquet", parts)
            run_manifest.start(run, data, selection, parts, command, known=known, became=became)
        before, damaged = checkpoints.newest(saving.folder)
        if run_manifest.is_first_process():
            for sentence in damaged:
                manifest.warn(sentence)
        with quiet_lightning():
            trainer.fit(module, ckpt_path=before, weights_only=True)
        if not trainer.is_global_zero:
            raise SystemExit(0)  # started only to train along: the first process goes on alone
        last = checkpoints.saved(saving.folder)[-1]
        with manifest.replacing(out / "encoder.safetensors") as temporary:
            save_file(checkpoints.encoder_weights(last), temporary)
        told = [] if known else [NO_PATIENTS]
        told += [alone] if alone else []
        warned = [*told, *damaged, *monitors.warnings]
        done = run_manifest.finish(run, module.device, saving.seconds, warned)
    summary(done, journal.last, str(out))
    return run


def _alone(selection: Selection, parts: Mapping[str, str]) -> str | None:
    """What a run on fewer than two patients, or without anybody to test on, must be told."""
    if int(selection.patients.max()) == 0:
        return (
            "All training samples are of one patient: there is nobody to tell them from. If they "
            "are of several people, index the archive with --patient-from or --table."
        )
    if "test" not in parts.values():
        return (
            "No patient is left to test on: what is said of this run is said of its own patients."
        )
    return None


def _check_table(recipe: Recipe, data: Path) -> None:
    """Raises UsageError if the table that all patients are learnt from holds their labels."""
    for section in ("categories", "numbers"):
        asked = recipe.dataset.get(section) or {}
        for name in labels_among(Index.open(data).items, asked):
            raise UsageError(
                f"dataset.{section}.{name} is a label column of {data}, and split.pretrain: all "
                "would learn it of test patients too: leave it out of the table, or set "
                "split.pretrain: train."
            )


def _check_partners(method: Method) -> None:
    """Raises UsageError if the method's positives are samples of one patient."""
    if any(view.source for view in method.views):
        raise UsageError(
            f"The positives of {type(method).__name__} are samples of one patient: say whose each "
            "sample is (patients=), or take another method."
        )


def _preparing(recipe: Recipe) -> int:
    """How many processes prepare: never this one, which a crash in a plugin would end each time."""
    return max(2, recipe.trainer.workers)


def build(recipe: Recipe, selection: Selection) -> Pretraining:
    """The method around the recipe's encoder, freshly initialised under its seed."""
    encoder = build_encoder(recipe, recipe.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(recipe.seed, MODEL))
        factory = recipes.method_factory(recipe)
        method: Method = factory(encoder, **recipe.part("method").arguments)
    _check_needs(method, selection)
    views = resolve(plugins.get(recipe.plugin).views)(**recipe.views)
    return Pretraining(method, views, selection, recipe)


def _trainer(recipe: Recipe, callbacks: list[Callback]) -> Trainer:
    """Lightning's trainer, without the parts that the callbacks here take the place of.

    Raises:
        UsageError: if this machine has not the devices that the recipe asks for.
    """
    settings = recipe.trainer
    several = settings.devices * settings.nodes > 1
    parts: list[Any] = [checkpointing.AtomicIO()]
    if several and settings.sync_batchnorm and settings.strategy != "fsdp":
        parts.append(SyncLayers())
    try:
        trainer = Trainer(
            max_steps=settings.steps,
            accumulate_grad_batches=settings.accumulate,
            gradient_clip_val=recipe.optimizer.clip,
            precision=PRECISION[settings.precision],
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.nodes,
            strategy=_strategy(settings),
            callbacks=callbacks,
            plugins=parts,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except MisconfigurationException as error:
        raise UsageError(f"This machine cannot do what 'trainer' asks: {error}") from None
    if settings.precision == "16" and isinstance(trainer.accelerator, CPUAccelerator):
        raise UsageError("trainer.precision 16 needs a GPU. Set trainer.precision to bf16 or 32.")
    return trainer


def _strategy(settings: recipes.Trainer) -> str | ModelParallelStrategy:
    processes = settings.devices * settings.nodes
    if settings.strategy == "fsdp":
        return ModelParallelStrategy(
            data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False
        )
    return "ddp" if processes > 1 else settings.strategy


PRECISION: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
}


def _check_needs(method: Method, selection: Selection) -> None:
    """Raises UsageError if the samples lack what the method cannot do without."""
    carried = set(selection.samples.read(selection.rows[:1])) | {"patient", "index"}
    if selection.label is not None:
        carried.add("label")
    if selection.site is not None and (selection.site >= 0).any():
        carried.add("site")
    for need in method.needs:
        if need not in carried:
            raise UsageError(
                f"{type(method).__name__} needs '{need}' of every sample, and these carry only "
                f"{', '.join(sorted(carried))}. Set it in the dataset section (labels come from "
                "probe.task, or from the only label of the samples), or take another method."
            )


def _label(recipe: Recipe) -> str | None:
    task = recipe.probe.task
    return plugins.get(recipe.plugin).tasks[task].label if task else None


def _labelled(
    recipe: Recipe, data: Path | None, selection: Selection, parts: dict[str, str]
) -> Selection | None:
    """Class-labelled samples of training patients for the kNN probe: the task's, if need be."""
    if recipe.split.pretrain == "all":
        selection = select(selection.samples, parts, _label(recipe))
    if selection.label is None and recipe.probe.task and data is not None:
        samples = load_samples(recipe, data, task=recipe.probe.task, workers=_preparing(recipe))
        name = _label(recipe)
        if name is not None and name not in samples.labels:
            raise UsageError(
                f"Task '{recipe.probe.task}' asks for the label '{name}', which its samples do not "
                f"carry. {did_you_mean(name, samples.labels)} Set it in the probe.dataset section, "
                "or take another probe.task."
            )
        selection = select(samples, parts, name)
    label = selection.label
    return selection if label is not None and label.dtype.kind == "i" and label.ndim == 1 else None


def _write_split(path: Path, parts: dict[str, str]) -> None:
    with manifest.replacing(path) as temporary:
        pl.DataFrame({"patient": list(parts), "split": list(parts.values())}).write_parquet(
            temporary
        )


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without Lightning's banners and tips, which are about settings made here on purpose."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
