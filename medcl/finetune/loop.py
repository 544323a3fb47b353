"""One training: a classifier, its batches, early stopping. Independent of folds and files."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medcl import recipe as recipes
from medcl.classifiers import losses
from medcl.classifiers.contract import VIEW, Classifier, Layerwise, declared
from medcl.classifiers.losses import supervised
from medcl.classifiers.standardisation import Standard
from medcl.engine import optim
from medcl.errors import MedclError, UsageError
from medcl.finetune import augmented, devices
from medcl.finetune.batches import Read, ahead, balanced, cut, shuffled
from medcl.labels.activation import probabilities
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State, after_step
from medcl.metrics.measures import measure
from medcl.nn.distributed import ranks
from medcl.nn.ema import Momentum
from medcl.plugin import Views
from medcl.seeds import MODEL, ORDER, derive, reseed

Build = Callable[[Mapping[str, Tensor], Outputs], Classifier]


@dataclass(frozen=True)
class Learning:
    """Training data: positions and labels.

    Attributes:
        read: positions → a batch.
        y: (N, ...) labels of all samples, see `Outputs.kind`; a regression's are standardised here.
        patients: (N,) int64 codes.
        train: positions of training samples.
        validation: positions that select the best epoch; if empty, the last one is kept.
        strata: (len(train),) for the balanced sampler; None to shuffle.
        auxiliary: name → (N, ...), auxiliary targets of a batch.
        instances: of bags, keys of a batch with one entry for each instance.
    """

    read: Read
    y: Tensor
    patients: Tensor
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    strata: NDArray[np.str_] | None = None
    auxiliary: Mapping[str, Tensor] = field(default_factory=dict)
    instances: Sequence[str] = ()

    def batch(
        self, read: Mapping[str, Tensor], rows: NDArray[np.int64], y: Tensor
    ) -> dict[str, Tensor]:
        """A batch as read, with targets and patient codes."""
        at = torch.from_numpy(rows)
        known = {name: values[at] for name, values in self.auxiliary.items()}
        return {**read, **known, "y": y[at], "patient": self.patients[at]}


@dataclass(frozen=True)
class Trained:
    """A trained classifier.

    Attributes:
        model: the classifier of the best epoch, behind its standardisation.
        epochs: number of epochs trained.
        best: the epoch kept, counted from 1.
        history: by epoch: training loss and validation figure.
    """

    model: Model
    epochs: int
    best: int
    history: list[dict[str, float]]


class Model(nn.Module):
    """A classifier behind the standardisation of its inputs and, of a regression, its values."""

    def __init__(self, classifier: Classifier, inputs: Standard, values: Standard) -> None:
        super().__init__()
        assert isinstance(classifier, nn.Module)
        self.classifier = classifier
        self.inputs, self.values = inputs, values

    def step(self, batch: Mapping[str, Tensor], state: State) -> dict[str, Tensor]:
        """See `Classifier.step`."""
        return self.classifier.step(self._standardised(batch), state)

    @torch.inference_mode()
    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Classifier.predict`; a regression's scores are in the unit of its label."""
        outcome = self.classifier.predict(self._standardised(batch))
        return {**outcome, "scores": self.values.back(outcome["scores"].float())}

    def scores(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The scores alone, with a gradient to the batch if it requires one."""
        scores = self.classifier.predict(self._standardised(batch))["scores"]
        return self.values.back(scores.float())

    def _standardised(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        inputs = {n: v for n, v in batch.items() if n == "x" or n.startswith(VIEW)}
        return {**batch, **{name: self.inputs(values) for name, values in inputs.items()}}


def fit(
    build: Build,
    outputs: Outputs,
    learning: Learning,
    settings: recipes.Finetune,
    optimization: recipes.Optimizer,
    *,
    seed: int,
    device: torch.device,
    views: Callable[[], Views] | None = None,
) -> Trained:
    """Train until the last epoch, or until validation stops improving.

    All randomness depends on ``seed``: the same call gives the same weights. In a process group
    each rank makes this call, takes its part of every batch, and returns the same weights. If the
    classifier declares views, ``views`` builds the augmentation that makes them for every training
    batch; with ``augment`` others get one view in place of the sample.

    Raises:
        MedclError: if the loss is no longer finite.
        UsageError: for 16 bits without a GPU.
    """
    reseed(device, seed, MODEL)
    world = ranks()
    built = _model(build, outputs, learning, settings).to(device)
    model = devices.synchronised(built, device)
    assert isinstance(model, Model)
    drawn = seed if world.world == 1 else derive(seed, world.rank)
    if world.world > 1:
        reseed(device, drawn, MODEL)  # for dropout; the weights are alike
    declared_views = declared(model.classifier).views
    rate = model.classifier.rate if isinstance(model.classifier, Layerwise) else None
    per_epoch = len(cut(learning.train, settings.batch_size))
    steps = settings.epochs * per_epoch
    optimizer, scheduler = optim.build(model.classifier, optimization, steps, rate=rate)
    y = learning.y
    if outputs.kind == "regression":
        y = model.values(y.unsqueeze(-1).to(device)).squeeze(-1).cpu()
    scheduled = max(getattr(model.classifier, "scheduled", 0.0), losses.scheduled(outputs))
    stopping = _EarlyStopping(settings, outputs, learning, scheduled)
    wanted = declared_views or settings.augment
    augment = views() if wanted and views is not None else None
    if isinstance(augment, nn.Module):
        augment.to(device)
    precision, scaler = _precision(settings, device)
    averaged = Momentum(model) if settings.ema else None
    kept = model if averaged is None else averaged.module
    assert isinstance(kept, Model)
    step = 0
    for epoch in range(1, settings.epochs + 1):
        model.train()
        total = torch.zeros((), device=device)
        batches = cut(_order(learning, seed, epoch), settings.batch_size)
        for rows, read in ahead(learning.read, [devices.mine(rows, world) for rows in batches]):
            batch = on(learning.batch(read, rows, y), device)
            if augment is not None:
                batch |= augmented.viewed(declared_views, augment, batch["x"], drawn, step)
            if settings.instance_dropout:
                share = settings.instance_dropout
                batch = augmented.dropped(batch, learning.instances, share, drawn, step)
            if settings.mixup:
                batch = augmented.mixed(batch, settings.mixup, drawn, step)
            with precision:
                outcome = model.step(batch, State(step, steps))
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(outcome["loss"]).backward()
            devices.average_gradients(model, world)
            if optimization.clip is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), optimization.clip)
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            after_step(model.classifier, State(step, steps))
            if averaged is not None:  # the first steps are soon forgotten
                averaged.follow(model, min(settings.ema, (1 + step) / (10 + step)))
            total += outcome["loss"].detach() * (len(rows) / len(learning.train))
            step += 1
        loss = float(world.mean(total)) * world.world
        if not np.isfinite(loss):
            raise MedclError(
                f"The loss is not finite in epoch {epoch}: lower optimizer.lr, or set "
                "optimizer.clip. If this is the first epoch, look for NaN in the features."
            )
        if stopping.stop(kept, epoch, loss, device):
            break
    return stopping.trained(kept)


def _precision(
    settings: recipes.Finetune, device: torch.device
) -> tuple[torch.autocast, torch.amp.GradScaler]:
    """The context of a training step, and the scaling of its loss.

    Raises:
        UsageError: for 16 bits without a GPU.
    """
    if settings.precision == "16" and device.type == "cpu":
        raise UsageError("finetune.precision 16 needs a GPU. Set it to bf16 or 32.")
    kind = torch.float16 if settings.precision == "16" else torch.bfloat16
    return (
        torch.autocast(device.type, kind, enabled=settings.precision != "32"),
        torch.amp.GradScaler(device.type, enabled=settings.precision == "16"),
    )


class _EarlyStopping:
    """Keeps the best epoch so far, of those after the classifier's schedule.


    ``scheduled`` is the share of the training that a schedule takes: before its end no epoch is
    chosen and patience does not count, or a half-made model would be kept. At least the last epoch
    is left to choose.
    """

    def __init__(
        self,
        settings: recipes.Finetune,
        outputs: Outputs,
        learning: Learning,
        scheduled: float = 0.0,
    ) -> None:
        last = settings.epochs
        self._first = min(int(np.ceil(scheduled * last - 1e-9)) + 1, last)
        self.settings, self.outputs, self.learning = settings, outputs, learning
        self.history: list[dict[str, float]] = []
        self.best = 0
        self._best_figure = (-np.inf, -np.inf)
        self._weights: dict[str, Tensor] = {}

    def stop(self, model: Model, epoch: int, loss: float, device: torch.device) -> bool:
        """Record an epoch; True once patience is exhausted."""
        self.history.append({"loss": loss})
        if not len(self.learning.validation):
            self.best = epoch
            return False
        figure = self._figure(model, device)
        self.history[-1]["validation"] = figure[0]
        if epoch < self._first:
            return False
        if figure > self._best_figure:
            self.best, self._best_figure = epoch, figure
            self._weights = copy.deepcopy(model.state_dict())
        patience = self.settings.patience
        return patience is not None and epoch - self.best >= patience

    def trained(self, model: Model) -> Trained:
        """The model with the weights of its best epoch."""
        if self._weights:
            model.load_state_dict(self._weights)
        return Trained(
            model.eval(), len(self.history), self.best or len(self.history), self.history
        )

    def _figure(self, model: Model, device: torch.device) -> tuple[float, float]:
        """The monitored figure on validation patients (higher is better), and −loss for ties."""
        from medcl.metrics import metrics

        rows = self.learning.validation
        scores = predict(model, self.learning.read, rows, self.settings.batch_size, device)
        y = self.learning.y[torch.from_numpy(rows)]
        standardised, target = model.values(scores.to(device)).cpu(), y
        if self.outputs.kind == "regression":
            target = model.values(y.unsqueeze(-1).to(device)).squeeze(-1).cpu()
        loss = float(supervised(self.outputs, standardised, target))
        kind, monitor = self.outputs.kind, self.settings.monitor
        if monitor == "loss" or kind not in ("binary", "multiclass", "multilabel"):
            return -loss, 0.0
        labels = y.nan_to_num(-1).long().numpy()
        probability = probabilities(kind, scores.numpy())
        value = measure(kind, labels, probability, metrics.once(len(rows)))[monitor][0]
        return (float(value) if np.isfinite(value) else -np.inf), -loss


def predict(
    model: Model,
    read: Read,
    rows: NDArray[np.int64],
    batch_size: int,
    device: torch.device,
    instances: Callable[[NDArray[np.int64], Mapping[str, Tensor], Tensor], None] | None = None,
) -> Tensor:
    """Scores (len(rows), size) on the CPU.

    Args:
        model: is set to evaluation mode.
        read: positions → a batch.
        rows: positions.
        batch_size: samples per forward pass.
        device: of the model.
        instances: called for each batch of bags with its rows, the batch, and its instances'
            contributions.
    """
    model.eval()
    out = []
    for positions, batch in ahead(read, cut(rows, batch_size)):
        outcome = model.predict(on(batch, device))
        out.append(outcome["scores"].cpu())
        if instances is not None and "instances" in outcome:
            instances(positions, batch, outcome["instances"].float().cpu())
    return torch.cat(out)


def on(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The batch on a device; to a GPU it is copied while the step before is still computed."""
    if device.type != "cuda":
        return {name: values.to(device) for name, values in batch.items()}
    return {n: v.pin_memory().to(device, non_blocking=True) for n, v in batch.items()}


def _order(learning: Learning, seed: int, epoch: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(derive(seed, ORDER, epoch))
    if learning.strata is None:
        return shuffled(learning.train, rng)
    return balanced(learning.train, learning.strata, rng)


def _model(build: Build, outputs: Outputs, learning: Learning, settings: recipes.Finetune) -> Model:
    """The classifier with initial weights, and means and deviations of the training samples."""
    rows = learning.train[: max(2, min(len(learning.train), settings.batch_size))]
    example = learning.batch(learning.read(rows), rows, learning.y)
    inputs, values = Standard(()), Standard(())
    if settings.standardise:
        batches = ahead(learning.read, cut(learning.train, settings.batch_size))
        inputs = Standard.of(batch["x"] for _, batch in batches)
    if outputs.kind == "regression":
        y = learning.y[torch.from_numpy(learning.train)]
        values = Standard.of([y[y.isfinite()].unsqueeze(-1)])
    return Model(build(example | {"x": inputs(example["x"])}, outputs), inputs, values)
