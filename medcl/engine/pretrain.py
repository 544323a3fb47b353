"""Pretraining, from top to bottom: samples → split → method → fit → a run directory."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
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

from medcl import checkpoints
from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.archive.clinical import labels_among
from medcl.archive.index import Index
from medcl.archive.splits import split
from medcl.engine import checkpointing, run_manifest
from medcl.engine.batchnorm import SyncLayers
from medcl.engine.data import Selection, check_fills, select
from medcl.engine.journal import Journal
from medcl.engine.module import Pretraining
from medcl.engine.online_evaluation import OnlineEvaluation
from medcl.engine.show import Show, say, summary
from medcl.errors import UsageError
from medcl.io.atomic import replacing
from medcl.methods.contract import Method
from medcl.private import write_recipe
from medcl.recipe import Recipe
from medcl.registry import did_you_mean, resolve
from medcl.run import Run, build_encoder, load_samples, prepared, samples_of
from medcl.seeds import MODEL, derive


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
    recipe.part("method")  # a recipe that only classifies is refused before anything is made
    run_manifest.check_same(run, data)
    if run_manifest.finished(run):
        say(f"{out} is done: nothing to do.")
        return run
    everyone = recipe.split.pretrain == "all"
    if everyone:
        _check_table(recipe, data)
    items = prepared(recipe, data, workers=_preparing(recipe))
    for note in (items.left_out(), items.noticed()):
        if note and run_manifest.is_first_process():
            say(note)
    samples = samples_of(recipe, items)
    parts = run.split() if run_manifest.begun(run) else _draw(recipe, data)
    sites = dict(Index.open(data).items.select("id", "site").iter_rows())
    selection = select(samples, parts, _label(recipe), sites, everyone=everyone)
    run_manifest.check_same_samples(run, selection, parts)
    check_fills(selection, recipe.trainer.batch_size, recipe.trainer.devices * recipe.trainer.nodes)
    module = build(recipe, selection)
    journal, saving = Journal(out), checkpointing.Checkpoints(out / "checkpoints")
    looks = OnlineEvaluation(recipe.monitor, selection, _labelled(recipe, data, selection, parts))
    with quiet_lightning():
        trainer = _trainer(recipe, [checkpointing.Guard(), looks, journal, Show(journal), saving])
    with run_manifest.alone(run):
        if run_manifest.is_first_process():
            run_manifest.check_same(
                run, data
            )  # another run may have begun while this one was built
            run_manifest.check_same_samples(run, selection, parts)
            write_recipe(out, recipe)
            _write_split(out / "split.parquet", parts)
            run_manifest.start(run, data, selection, parts, command)
        before = checkpoints.saved(saving.folder)
        with quiet_lightning():
            trainer.fit(module, ckpt_path=str(before[-1]) if before else None, weights_only=True)
        if not trainer.is_global_zero:
            raise SystemExit(0)  # started only to train along: the first process goes on alone
        last = checkpoints.saved(saving.folder)[-1]
        with replacing(out / "encoder.safetensors") as temporary:
            save_file(checkpoints.encoder_weights(last), temporary)
        done = run_manifest.finish(run, module.device, saving.seconds, looks.warnings)
    summary(done, journal.last, str(out))
    return run


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


def _draw(recipe: Recipe, data: Path) -> dict[str, str]:
    return split(Index.open(data).items, **recipe.split.drawn())


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
    recipe: Recipe, data: Path, selection: Selection, parts: dict[str, str]
) -> Selection | None:
    """Class-labelled samples of training patients for the kNN probe: the task's, if need be."""
    if recipe.split.pretrain == "all":
        selection = select(selection.samples, parts, _label(recipe))
    if selection.label is None and recipe.probe.task:
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
    with replacing(path) as temporary:
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
