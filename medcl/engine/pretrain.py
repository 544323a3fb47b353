"""Pretraining, from top to bottom: samples → split → method → fit → a run directory."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
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
from medcl.embeddings.vectors import with_vectors
from medcl.engine import checkpointing, dry_step, loggers, run_manifest, settled
from medcl.engine.batchnorm import SyncLayers
from medcl.engine.data import Selection, check_fills, select
from medcl.engine.in_memory import InMemory
from medcl.engine.journal import Journal
from medcl.engine.module import Pretraining
from medcl.engine.online_evaluation import OnlineEvaluation
from medcl.engine.show import Show, say, summary
from medcl.errors import MedclWarning, UsageError
from medcl.io import stopping
from medcl.methods.contract import Method
from medcl.nn import weights
from medcl.nn.distributed import check_launched
from medcl.nn.lora import adapt_for_pretraining, merged
from medcl.nn.micro_batches import in_micro_batches
from medcl.plugin import Samples
from medcl.private import write_recipe
from medcl.recipe import AUTO, Recipe
from medcl.registry import did_you_mean, resolve
from medcl.run import Run, build_encoder, is_untrained, load_samples, prepared, samples_of
from medcl.seeds import MODEL, derive

NO_PATIENTS = (
    "The patients of the samples are unknown, so the split is by sample: training and test may "
    "share patients, and no metric of this run holds for new patients."
)
"""The warning of a run on samples in memory without patients."""


def pretrain(recipe: Recipe, data: Path, out: Path, *, command: str = "") -> Run:
    """Train the encoder of ``recipe`` on the training patients of index ``data``, into ``out``.

    A second call returns a finished run as it is. It resumes an interrupted run from its last
    checkpoint, which then ends with the same weights and curves, bit for bit on a CPU with the same
    number of threads. The split is drawn once, when the run begins.

    Raises:
        UsageError: if ``out`` holds a run of another recipe or other data, or another process is
            training into it; if the index changed since the run began; if there are fewer
            training samples than a batch; if the machine does not support the settings of
            ``trainer``, or a launcher started another number of processes; if training includes
            test patients and the clinical table holds labels.
        MedclError: if the loss or the weights become NaN or infinite.
        SystemExit: in every process but the first of a distributed run, after training.
    """
    recipe = settled.recorded(recipe, out)
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
    became = outcomes.table(index, run.plugin, recipe.prepare, items)
    samples = with_vectors(samples_of(recipe, items), recipe.vectors)
    return _train(run, samples, index.items, data, command, became=became)


def pretrain_on(recipe: Recipe, data: InMemory, out: Path, *, command: str = "") -> Run:
    """Train the encoder of ``recipe`` on samples in memory, into ``out``; see `pretrain`.

    The recipe's sections ``prepare`` and ``dataset`` are not used: the samples must already have
    the form that its views and encoder take. Without patients the split is by sample, and the run
    records a warning.

    Args:
        recipe: what to train.
        data: see `medcl.engine.in_memory.given`.
        out: the run's folder; an interrupted run is resumed.
        command: the command line, for run.json.

    Raises:
        UsageError: as `pretrain`; and if the method needs patients and they are unknown.
    """
    recipe = settled.recorded(recipe, out)
    run = Run(out, recipe)
    if _done(run, None):
        return run
    return _train(run, data.samples, data.items, None, command, patients_known=data.patients_known)


def _done(run: Run, data: Path | None) -> bool:
    """Whether the folder holds this run, finished."""
    check_launched(run.recipe.trainer.devices, run.recipe.trainer.nodes)
    run.recipe.part("method")  # refuse a recipe without a method before writing anything
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
    patients_known: bool = True,
    became: Sequence[Outcome] = (),
) -> Run:
    """Split, train and write; the split is drawn from ``items``."""
    recipe, out = run.recipe, run.path
    all_patients = recipe.split.pretrain == "all"
    parts = run.split() if run_manifest.has_started(run) else split(items, **recipe.split.drawn())
    sites = dict(items.select("id", "site").iter_rows())
    selection = select(samples, parts, _label(recipe), sites, all_patients=all_patients)
    run_manifest.check_same_samples(run, selection, parts)
    alone = _alone(selection, parts)
    if alone and run_manifest.is_first_process():
        warnings.warn(alone, MedclWarning, stacklevel=2)
    recipe, taken = _settled(recipe, selection)
    run = replace(run, recipe=recipe)
    check_fills(selection, recipe.trainer.batch_size, recipe.trainer.devices * recipe.trainer.nodes)
    loggers.check(recipe.monitor.loggers)
    module = build(recipe, selection)
    if not patients_known:
        _check_partners(module.method)
        if run_manifest.is_first_process():
            say(NO_PATIENTS)
    _say_cost(module)
    journal, saving = Journal(out), checkpointing.Checkpoints(out / "checkpoints")
    online = OnlineEvaluation(recipe.monitor, selection, _labelled(recipe, data, selection, parts))
    with quiet_lightning():
        trainer = _trainer(recipe, [checkpointing.Guard(), online, journal, Show(journal), saving])
    with run_manifest.exclusive(run), stopping.deferred() as saving.notice:
        if run_manifest.is_first_process():
            run_manifest.check_same(run, data)  # another process may have started meanwhile
            run_manifest.check_same_samples(run, selection, parts)
            write_recipe(out, recipe)
            _write_split(out / "split.parquet", parts)
            run_manifest.start(
                run, data, selection, parts, command, patients_known=patients_known, became=became
            )
        resume_from, damaged = checkpoints.newest(saving.folder)
        if run_manifest.is_first_process():
            for sentence in damaged:
                manifest.warn(sentence)
        with quiet_lightning():
            trainer.fit(module, ckpt_path=resume_from, weights_only=True)
        if not trainer.is_global_zero:
            raise SystemExit(0)  # only the first process writes the results
        last = checkpoints.saved(saving.folder)[-1]
        with manifest.replacing(out / "encoder.safetensors") as temporary:
            save_file(merged(checkpoints.encoder_weights(last)), temporary)
        notes = [*taken] if patients_known else [NO_PATIENTS, *taken]
        notes += [alone] if alone else []
        notes += [*damaged, *online.warnings]
        facts = run_manifest.finish(run, module.device, saving.seconds, notes)
    summary(facts, journal.last, str(out))
    return run


def _settled(recipe: Recipe, selection: Selection) -> tuple[Recipe, list[str]]:
    """The recipe with what waited for the data, and sentences on what was taken.

    Raises:
        UsageError: if no batch fits; if a launcher started several processes, which would measure
            each for itself.
    """
    if not settled.waiting(recipe):
        return recipe, []
    devices, notes = recipe.trainer.devices * recipe.trainer.nodes, []
    if recipe.trainer.batch_size == AUTO:
        if "WORLD_SIZE" in os.environ and devices > 1:
            raise UsageError(
                "trainer.batch_size: auto measures the memory in one process, and a launcher "
                f"started {os.environ['WORLD_SIZE']}: set the batch size."
            )
        each = len(selection) // devices
        trial = recipe.trainer.model_copy(update={"batch_size": settled.goal(each)})
        module = build(recipe.model_copy(update={"trainer": trial}), selection)
        recipe, note = settled.batch_that_fits(recipe, module, each, _memory(recipe))
        notes.append(note)
    if recipe.trainer.scale:
        recipe, more = settled.scaled(recipe, len(selection))
        notes += more
    for note in notes if run_manifest.is_first_process() else ():
        say(note)
    return recipe, notes


def _memory(recipe: Recipe) -> int | None:
    """Bytes that each process may still take: of a GPU, or its part of this machine's."""
    if recipe.trainer.accelerator != "cpu" and torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    memory = dry_step.free()
    return None if memory is None else memory // recipe.trainer.devices


def _say_cost(module: Pretraining) -> None:
    """Where training is on processors: say what the run will take, or refuse what cannot fit.

    Raises:
        UsageError: see `dry_step.told`.
    """
    settings = module.recipe.trainer
    on_gpu = settings.accelerator != "cpu" and torch.accelerator.is_available()
    if on_gpu or not run_manifest.is_first_process():
        return
    memory = dry_step.free()
    each = None if memory is None else memory // settings.devices
    if (cost := dry_step.measured(module)) is not None:
        say(dry_step.told(cost, module.recipe, len(module.selection), each))


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
    """Raises UsageError if the clinical table holds labels and training includes test patients."""
    for section in ("categories", "numbers"):
        columns = recipe.dataset.get(section) or {}
        for name in labels_among(Index.open(data).items, columns):
            raise UsageError(
                f"dataset.{section}.{name} is a label column of {data}, and with "
                "split.pretrain: all the method would train on the labels of test patients: leave "
                "it out of the table, or set split.pretrain: train."
            )


def _check_partners(method: Method) -> None:
    """Raises UsageError if the method's positives are samples of one patient."""
    if any(view.source for view in method.views):
        raise UsageError(
            f"The positives of {type(method).__name__} are samples of one patient: give the "
            "patient of each sample (patients=), or choose another method."
        )


def _preparing(recipe: Recipe) -> int:
    """Number of processes that prepare: at least two, so that a plugin's crash does not kill us."""
    return max(2, recipe.trainer.workers)


def build(recipe: Recipe, selection: Selection) -> Pretraining:
    """The method around the recipe's encoder, initialised with its seed."""
    if recipe.trainer.lora and recipe.trainer.weights is None and is_untrained(recipe):
        raise UsageError(
            "trainer.lora trains a small addition to given weights, and this encoder has none: set "
            "trainer.weights, or leave it out."
        )
    encoder = build_encoder(recipe, recipe.seed)
    if recipe.trainer.weights is not None:
        weights.load(encoder, weights.of_folder(Path(recipe.trainer.weights)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(recipe.seed, MODEL))
        if recipe.trainer.lora is not None:
            adapt_for_pretraining(encoder, recipe.trainer.lora)
        factory = recipes.method_factory(recipe)
        method: Method = factory(encoder, **recipe.part("method").arguments)
    _check_needs(method, selection)
    views = resolve(plugins.get(recipe.plugin).views)(**recipe.views)
    micro = recipe.trainer.micro_batch
    if micro is not None and recipe.trainer.strategy == "fsdp":
        raise UsageError("trainer.micro_batch does not go with strategy fsdp: take ddp.")
    parts = None if micro is None else in_micro_batches(method.encoder, micro)
    return Pretraining(method, views, selection, recipe, parts)


def _trainer(recipe: Recipe, callbacks: list[Callback]) -> Trainer:
    """Lightning's trainer, without the features that our callbacks replace.

    Raises:
        UsageError: if this machine lacks the devices of the recipe.
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
        raise UsageError(
            f"This machine does not support the settings of 'trainer': {error}"
        ) from None
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
    """Raises UsageError if the samples lack a batch key that the method needs."""
    keys = set(selection.samples.read(selection.rows[:1])) | {"patient", "index"}
    if selection.label is not None:
        keys.add("label")
    if selection.site is not None and (selection.site >= 0).any():
        keys.add("site")
    for need in method.needs:
        if need not in keys:
            raise UsageError(
                f"{type(method).__name__} needs '{need}' of every sample; these have only "
                f"{', '.join(sorted(keys))}. Set it in the dataset section (labels come from "
                "probe.task, or from the only label of the samples), or choose another method."
            )


def _label(recipe: Recipe) -> str | None:
    task = recipe.probe.task
    return plugins.get(recipe.plugin).tasks[task].label if task else None


def _labelled(
    recipe: Recipe, data: Path | None, selection: Selection, parts: dict[str, str]
) -> Selection | None:
    """Samples of training patients with class labels for the kNN probe, or None."""
    if recipe.split.pretrain == "all":
        selection = select(selection.samples, parts, _label(recipe))
    if selection.label is None and recipe.probe.task and data is not None:
        samples = load_samples(recipe, data, task=recipe.probe.task, workers=_preparing(recipe))
        name = _label(recipe)
        if name is not None and name not in samples.labels:
            raise UsageError(
                f"Task '{recipe.probe.task}' asks for the label '{name}', which its samples do not "
                f"have. {did_you_mean(name, samples.labels)} Set it in the probe.dataset section, "
                "or choose another probe.task."
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
    """Silence Lightning's banners and tips, which concern settings that we choose on purpose."""
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
