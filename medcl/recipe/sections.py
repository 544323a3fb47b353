"""The sections of a recipe: their settings, types, bounds, defaults and descriptions.

The modality-free sections are complete here. ``prepare``, ``dataset``, ``views``, ``encoder``,
``method`` and ``classifier`` are open: `medcl.recipe.check` validates them against the functions
that they configure.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from medcl.errors import UsageError


class Section(BaseModel):
    """A strict part of a recipe: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class Named(BaseModel):
    """A registered name and its keyword arguments in one mapping: ``{name: simclr, ...}``."""

    model_config = ConfigDict(extra="allow")
    name: str = Field(description="The registered name.")

    @property
    def arguments(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


def _number_as_text(value: object) -> object:
    """YAML reads 16 as a number; the choice is the text "16"."""
    return str(value) if isinstance(value, int) else value


AUTO = 0
"""The number of "auto": a setting that is settled when a run begins."""


def _auto_as_number(value: object) -> object:
    return AUTO if value == "auto" else value


def _a_batch(value: int) -> int:
    if value < 2 and value != AUTO:
        raise ValueError("Input should be greater than 1, or auto")
    return value


BatchSize = Annotated[
    int,
    BeforeValidator(_auto_as_number),
    AfterValidator(_a_batch),
    PlainSerializer(lambda value: "auto" if value == AUTO else value, return_type=int | str),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 2}, {"const": "auto"}]}),
]

Beta = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Precision = Annotated[Literal["32", "bf16", "16"], BeforeValidator(_number_as_text)]


def _is(default: Any, description: str, **bounds: Any) -> Any:
    """A setting with its default and description."""
    return Field(default, description=description, **bounds)


class Optimizer(Section):
    """The optimizer and its learning rate schedule."""

    name: Literal["adamw", "adam", "sgd", "lars"] = _is("adamw", "The optimizer.")
    lr: float = _is(1e-3, "Learning rate after the warm-up, above 0.", gt=0)
    weight_decay: float = _is(1e-4, "Weight decay, 0 or more.", ge=0)
    final_weight_decay: float | None = _is(
        None, "Weight decay at the end, on a cosine from weight_decay; null: constant.", ge=0
    )
    layer_decay: float = _is(
        1.0,
        "Pretraining: factor on the learning rate from each block of the encoder to the one below, "
        "above 0 to 1.",
        gt=0,
        le=1,
    )
    momentum: float = _is(0.9, "Momentum of sgd and lars, from 0 to below 1.", ge=0, lt=1)
    betas: tuple[Beta, Beta] = _is((0.9, 0.999), "β₁ and β₂ of adam and adamw, from 0 to below 1.")
    warmup: float = _is(0.05, "Linear warm-up, as a share of all steps, 0 to 1.", ge=0, le=1)
    schedule: Literal["cosine", "constant"] = _is("cosine", "Learning rate after the warm-up.")
    final_lr: float = _is(0.0, "Learning rate at the end of the cosine, 0 or more.", ge=0)
    clip: float | None = _is(None, "Largest gradient norm, above 0; null: no clipping.", gt=0)


class Trainer(Section):
    """Length of training, size of batches, and hardware."""

    steps: int = _is(1000, "Optimizer steps, above 0.", gt=0)
    batch_size: BatchSize = _is(
        256,
        "Samples per process and forward pass, 2 or more; auto: 256, or with accumulate what fits "
        "into the free memory.",
    )
    scale: bool = _is(
        False,
        "Take optimizer.lr as that of 256 samples a step, and limit warm-up, queue and prototypes "
        "by the size of the archive.",
    )
    micro_batch: int | None = _is(
        None,
        "Samples that the encoder sees at a time (GradCache): the loss is over the whole batch, in "
        "the memory of so many samples, for one more forward pass; null: the whole batch.",
        gt=0,
    )
    accumulate: int = _is(1, "Batches whose gradients are summed for one step.", gt=0)
    precision: Precision = _is("32", "Floating-point format: 32, bf16 or 16 bits.")
    devices: int = _is(1, "Devices on each node.", gt=0)
    nodes: int = _is(1, "Nodes of a cluster.", gt=0)
    accelerator: Literal["auto", "cpu", "gpu"] = _is("auto", "Kind of device.")
    strategy: Literal["auto", "ddp", "fsdp"] = _is("auto", "Strategy of training on many devices.")
    sync_batchnorm: bool = _is(
        True, "Compute batch normalisation over the batches of all devices, if there are several."
    )
    workers: int = _is(0, "Processes that load data; 0: the training process loads it.", ge=0)
    lora: int | None = _is(
        None,
        "Rank of LoRA: of the encoder only a low-rank addition to each linear layer is trained; "
        "null: all of it.",
        gt=0,
    )
    weights: str | None = _is(
        None,
        "Weights of the encoder to continue from: a run's folder, one of Hugging Face, timm or "
        "MONAI, or a file; null: new ones, or those of encoder.",
    )
    checkpoint_every: int = _is(200, "Steps between two checkpoints.", gt=0)
    log_every: int = _is(10, "Steps between two rows of metrics.", gt=0)


class Split(Section):
    """Training and test set. Always by patient (or site), never by sample."""

    by: Literal["patient", "site"] = _is("patient", "Unit that is in one part of the split only.")
    test: float = _is(
        0.3, "Share of test patients, between 0 and 1; not used with folds.", gt=0, lt=1
    )
    folds: int | None = _is(None, "Number of folds, 2 or more; null: one split.", ge=2)
    fold: int = _is(0, "The test fold, from 0 to folds − 1.", ge=0)
    stratify: str | None = _is(
        None, "Column of the index whose values are distributed evenly over the split."
    )
    given: str | None = _is(None, "Column with a published split: train or test.")
    seed: int = _is(0, "Seed of the split.")
    pretrain: Literal["train", "all"] = _is(
        "train",
        "Patients to pretrain on. all: test patients too, without their labels, if the archive "
        "itself is to be embedded; metrics then do not hold for patients of another one.",
    )

    def drawn(self) -> dict[str, Any]:
        """The arguments of `medcl.archive.splits.split`."""
        return self.model_dump(exclude={"pretrain"})

    @field_validator("fold")
    @classmethod
    def _is_one_of_the_folds(cls, fold: int, info: ValidationInfo) -> int:
        folds = info.data.get("folds")
        if folds is None and fold > 0:
            raise ValueError("there are no folds: set split.folds too")
        if folds is not None and fold >= folds:
            raise ValueError(f"with split.folds = {folds} the folds are 0 to {folds - 1}")
        return fold


class Monitor(Section):
    """Online evaluation: probes and collapse indicators, and where they are shown."""

    every: int = _is(100, "Steps between two evaluations.", gt=0)
    samples: int = _is(1024, "Samples to embed each time, 16 or more.", gt=15)
    neighbours: int = _is(20, "Neighbours of the kNN probe.", gt=0)
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = _is(
        ("tensorboard",),
        "Where to send metrics beside metrics.csv: tensorboard, wandb, mlflow. Only numbers, their "
        "names and the recipe's name are sent.",
    )


class Probe(Section):
    """Evaluation of frozen features by a linear probe."""

    task: str | None = _is(None, "A task of the plugin: the label to predict.")
    dataset: dict[str, Any] = Field(
        default_factory=dict,
        description="Dataset settings of the probe, which override those of task and recipe.",
    )
    fractions: tuple[Fraction, ...] = _is(
        (0.01, 0.1, 1.0), "Shares of the labelled training patients to fit on, above 0 to 1."
    )
    bootstraps: int = _is(1000, "Bootstrap resamples of patients, 100 or more.", ge=100)
    baselines: tuple[str, ...] | None = _is(
        None, "Baselines of the plugin to compare with; null: all of them."
    )

    @field_validator("baselines", mode="before")
    @classmethod
    def _earlier_name(cls, names: object) -> object:
        """Runs of before call the hand-crafted features "handmade"."""
        if not isinstance(names, list | tuple):
            return names
        return tuple("handcrafted" if name == "handmade" else name for name in names)


class AuxiliaryTarget(Section):
    """An auxiliary target, such as a value of the header; no metric is computed for it."""

    kind: Literal["auto", "binary", "multiclass", "ordinal", "regression"] = _is(
        "auto", "Kind of label; auto: by its values."
    )
    weight: float = _is(0.3, "Weight of its loss, above 0; the main target has 1.", gt=0)
    noisy: bool = _is(False, "Labels may be wrong: use a loss that is robust to wrong labels.")


class Finetune(Section):
    """Training with labels. ``split`` selects the test patients unless ``folds`` is set."""

    task: str | None = _is(None, "A task of the plugin; null: label and kind define the target.")
    label: str | None = _is(
        None, "Column of the labels or of the index; for survival, the column of times."
    )
    event: str | None = _is(
        None, "For survival: the column of the event indicator, 1 if it was observed."
    )
    kind: Literal[
        "auto", "binary", "multiclass", "multilabel", "ordinal", "regression", "cox", "hazard"
    ] = _is("auto", "Kind of problem; auto: by the values of the label.")
    classes: tuple[str, ...] = _is(
        (), "Classes in their order; for multilabel, the columns. Empty: all that occur."
    )
    intervals: int = _is(
        4, "For hazard: time intervals, by quantiles of the training patients, 2 or more.", ge=2
    )
    epochs: int = _is(50, "Passes over the training samples.", gt=0)
    batch_size: int = _is(16, "Samples or bags per batch.", gt=0)
    loss: Literal[
        "ce", "weighted", "focal", "robust", "class-balanced", "ldam", "ldam-drw", "logit-adjusted"
    ] = _is(
        "ce",
        "Cross-entropy: plain, weighted by class, focal, robust to wrong labels; for rare classes "
        "also class-balanced, ldam, ldam-drw or logit-adjusted.",
    )
    auxiliary: dict[str, AuxiliaryTarget] = Field(
        default_factory=dict, description="Columns of auxiliary targets, each with its settings."
    )
    sampler: Literal["shuffled", "balanced"] = _is(
        "shuffled", "Order of training samples; balanced: classes equally often."
    )
    augment: bool = _is(False, "Train on views of the samples, drawn as the recipe's views say.")
    instance_dropout: float = _is(
        0.0,
        "Of bags: share of instances left out of each training batch, 0 to below 1.",
        ge=0,
        lt=1,
    )
    mixup: float = _is(0.0, "α of mixup: training samples are mixed in pairs; 0: not.", ge=0)
    ema: float = _is(
        0.0,
        "Decay of an average of the weights over steps, which is kept in their place; 0: none.",
        ge=0,
        lt=1,
    )
    precision: Precision = _is("32", "Floating-point format of training: 32, bf16 or 16 bits.")
    devices: int = _is(
        1,
        "Devices that share each batch: GPUs, or processes of a CPU; folds then run in turns.",
        gt=0,
    )
    standardise: bool = _is(
        False, "Scale features by mean and standard deviation of the training samples."
    )
    unlabelled: bool = _is(
        False, "Learn from samples without a label too (classifier semi-supervised)."
    )
    tree: tuple[str, ...] = _is((), "Columns with coarser forms of the class, the coarsest first.")
    soft: tuple[str, ...] = _is(
        (), "Columns of class probabilities, 0 to 1, one for each class in their order."
    )
    validation: float = _is(
        0.15, "Share of the training patients for validation, from 0 to below 1.", ge=0, lt=1
    )
    monitor: Literal["loss", "balanced_accuracy", "auroc"] = _is(
        "loss", "Validation metric that selects the best epoch."
    )
    patience: int | None = _is(
        None, "Epochs without improvement before training stops; null: never.", gt=0
    )
    folds: int | None = _is(
        None, "Folds of cross-validation over patients, 2 or more; null: one split.", ge=2
    )
    repeats: int = _is(1, "Repeats of the cross-validation, each with other folds.", gt=0)
    epoch_steps: int | None = _is(
        None, "Of masks: batches in an epoch; null: one patch of each training image.", gt=0
    )
    window_overlap: float = _is(
        0.5, "Of masks: overlap of the windows of a prediction, from 0 to below 1.", ge=0, lt=1
    )
    tolerance: float = _is(1.0, "Of masks: tolerance of the surface Dice in mm, 0 or more.", ge=0)
    bootstraps: int = _is(1000, "Bootstrap resamples of patients, 100 or more.", ge=100)


class Recipe(Section):
    """All settings of a run, except the path of the data."""

    name: str = Field(description="Name of the recipe.")
    about: str = _is("", "Description in one sentence.")
    paper: str = _is("", "The papers that it follows.")
    plugin: str = Field(description="The modality, by the name of its plugin.")
    seed: int = _is(0, "Seed of everything random in training.")
    prepare: dict[str, Any] = Field(
        default_factory=dict, description="Decoding of items, once, into the store."
    )
    dataset: dict[str, Any] = Field(
        default_factory=dict, description="The samples that prepared items are cut into."
    )
    vectors: dict[str, str] = Field(
        default_factory=dict,
        description="Of pretraining: vectors that come with every sample, batch key → a folder of "
        "medcl embed (a teacher's features), or a Parquet table by id, item or patient.",
    )
    views: dict[str, Any] = Field(
        default_factory=dict, description="Augmentations of a batch on the training device."
    )
    encoder: Named | None = _is(None, "The network that turns samples into embeddings.")
    method: Named | None = _is(None, "The pretraining method.")
    classifier: Named | None = _is(None, "The classifier, for training with labels.")
    optimizer: Optimizer = _is(Optimizer(), "The optimizer and its learning rate schedule.")
    trainer: Trainer = _is(Trainer(), "Length of training, size of batches, and hardware.")
    split: Split = _is(Split(), "Training and test set, by patient or site.")
    monitor: Monitor = _is(Monitor(), "Online evaluation during pretraining.")
    probe: Probe = _is(Probe(), "Evaluation of frozen features by a linear probe.")
    finetune: Finetune = _is(Finetune(), "Training with labels.")

    def part(self, name: Literal["encoder", "method", "classifier"]) -> Named:
        """A required section.

        Raises:
            UsageError: if the recipe has none.
        """
        section: Named | None = getattr(self, name)
        if section is None:
            use = "pretrained" if name == "classifier" else "trained with labels: medcl finetune"
            raise UsageError(f"Recipe '{self.name}' has no section '{name}': it can only be {use}.")
        return section
