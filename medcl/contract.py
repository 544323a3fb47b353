"""The types of a plugin's parts: the call signature of each ``"module:attribute"`` of a `Plugin`.

A plugin imports nothing of it at run time. A plugin lets mypy check its parts::

    if TYPE_CHECKING:
        from medcl import contract
        _dataset: contract.Dataset = dataset

``medcl plugins check NAME`` runs the same parts on a few items (`medcl.plugin_check`).

Leading parameters are positional, so their names are free. Every keyword-only parameter of a part
is a setting: the recipe section of the same name may set it, and its default is the schema's
(`medcl.registry.checked`). The type of such a part has ``*no: Any, **settings: Any``, which makes
mypy accept any keyword-only parameters; the part takes no further positional ones.

Shapes: N samples of an index, B of a batch, I instances of all bags of a batch, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from medcl.plugin import Arrays, Samples, Stream, Views

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import polars as pl
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from medcl.benchmark.contract import Benchmark
    from medcl.classifiers.contract import Classifier as BuiltClassifier
    from medcl.labels.outputs import Outputs
    from medcl.methods.contract import Method as BuiltMethod
    from medcl.run import Trained

X, BAG, COORDS, OK, TABLE = "x", "bag", "coords", "ok", "table"
MASK, SPACING = "mask", "spacing"
"""The keys of a batch that the core reads; see `Batch`."""


class Batch(TypedDict, total=False):
    """The batch that `Samples.read` returns. Only ``x`` is required.

    A plugin may add its own keys, (B, ...) each, for its own baselines and for its own methods,
    which name them in ``needs``. The core reads only the keys below.

    Attributes:
        x: (B, ...) the samples, float32, finite; of bags (I, F), the instances of all bags of the
            batch, concatenated.
        bag: for bags only, (I,) int64: the bag of each instance, 0 … B−1 in ascending order. Each
            bag has at least one instance.
        coords: (B, 2), for bags (I, 2): the coordinates of each tile or instance, in the unit of
            `Samples.facts`; NaN where unknown.
        ok: (B,) bool, False where a sample could not be read and another replaces it.
        table: (B, columns) float32, the columns of a clinical table (`medcl.archive.clinical`):
            the categorical ones first, −1 (categorical) or NaN (numeric) where missing.
        mask: (B, *space) int64, with `Samples.mask_classes`: the class of each position of ``x``
            (B, C, *space), −1 where it is unknown.
        spacing: (B, axes) float32, beside ``mask``: distances of positions, in mm or their unit.
    """

    x: np.ndarray
    mask: np.ndarray
    spacing: np.ndarray
    bag: np.ndarray
    coords: np.ndarray
    ok: np.ndarray
    table: np.ndarray


class Prepare(Protocol):
    """``Plugin.prepare``: decodes an item once; the store keeps the result by content address.

    Called as ``prepare(root, files, fields, **settings)``, in worker processes.

    Args:
        root: the archive.
        files: the record's files, relative to ``root``, in its order.
        fields: the record's fields, its ``findings``, and as ``reader`` the settings of ``scan``.

    Returns:
        name → array of numbers or flags, none of objects. The same files and settings give the
        same arrays. No array identifies a patient.

    Raises:
        Exception: any exception costs this item only. The message is shown, so it must not
            identify a patient.
    """

    def __call__(
        self,
        root: Path,
        files: Sequence[str],
        fields: Mapping[str, object],
        /,
        *no: Any,
        **settings: Any,
    ) -> Mapping[str, np.ndarray]: ...


class Dataset(Protocol):
    """``Plugin.dataset``: defines the samples of prepared items. It reads as little as possible.

    Called as ``dataset(items, arrays, **settings)``.

    Args:
        items: rows of the index: ``id``, ``patient``, ``group``, ``findings``, the fields,
            ``label.<name>``; in a curated index also ``keep``.
        arrays: their prepared arrays.

    Raises:
        UsageError: for settings that do not fit.
        MedclError: if no sample is left.
    """

    def __call__(
        self, items: pl.DataFrame, arrays: Arrays, /, *no: Any, **settings: Any
    ) -> Samples: ...


class ViewsFactory(Protocol):
    """``Plugin.views``, called as ``views(**settings)``: a module or function `Views`.

    The views draw random numbers from the given generator only. Kind "none" returns the sample
    without augmentation. All views of a batch have one shape, on the batch's device, in its dtype.
    An unknown kind is a `UsageError`.
    """

    def __call__(self, *no: Any, **settings: Any) -> Views: ...


class EncoderFactory(Protocol):
    """A value of ``Plugin.encoders``, called as ``encoder(**settings)``.

    Returns:
        a module (B, ...) → (B, width) for the output of the views, with an int attribute ``width``.
        In evaluation mode the features of a sample do not depend on the batch. Only torch's global
        generator initialises weights. A setting ``weights: Path | None = None`` is a file of
        initial weights; a trained encoder does not need it.
    """

    def __call__(self, *no: Any, **settings: Any) -> nn.Module: ...


class MethodFactory(Protocol):
    """A value of ``Plugin.methods``, called as ``method(encoder, **settings)``.

    Returns:
        a module, see `medcl.methods.contract.Method`.
    """

    def __call__(self, encoder: nn.Module, /, *no: Any, **settings: Any) -> BuiltMethod: ...


class ClassifierFactory(Protocol):
    """A value of ``Plugin.classifiers``, called as ``classifier(example, outputs, **settings)``.

    A classifier on an encoder is called as ``classifier(encoder, example, outputs, ...)``, see
    `EncoderClassifierFactory`. The attribute ``declares`` states which of the two it is, and its
    other requirements (`medcl.classifiers.contract.Declares`).

    Args:
        example: a batch as tensors, for its shapes alone.
        outputs: the outputs to predict.
    """

    def __call__(
        self, example: Mapping[str, Tensor], outputs: Outputs, /, *no: Any, **settings: Any
    ) -> BuiltClassifier: ...


class EncoderClassifierFactory(Protocol):
    """A classifier on an encoder (B, ...) → (B, width); see `ClassifierFactory`."""

    def __call__(
        self,
        encoder: nn.Module,
        example: Mapping[str, Tensor],
        outputs: Outputs,
        /,
        *no: Any,
        **settings: Any,
    ) -> BuiltClassifier: ...


class BenchmarkSet(Protocol):
    """A value of ``Plugin.benchmarks``: opens a public set in the folder where it was unpacked."""

    def __call__(self, folder: Path, /) -> Benchmark: ...


class Baseline(Protocol):
    """A value of ``Plugin.baselines``: engineered features as a reference.

    Args:
        batch: the arrays of `Samples.read`, see `Batch`.

    Returns:
        (B, F), the same F for every batch of a dataset; NaN where a feature is not defined.
    """

    def __call__(self, batch: Mapping[str, np.ndarray], /) -> NDArray[Any]: ...


class Pictures(Protocol):
    """``Plugin.pictures``: small pictures of an item's parts, for near-duplicate search.

    Args:
        arrays: of one item.

    Returns:
        locations (N,), as in the column ``keep`` of ``dataset``'s items; and (N, S, S) uint8.
    """

    def __call__(
        self, arrays: Mapping[str, np.ndarray], /
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]: ...


class Where(Protocol):
    """``Plugin.where``, of plugins whose samples have no `Samples.where`: locations by sample id.

    Args:
        ids: (N,) of samples.
        prepare: the recipe's section.
        dataset: the recipe's section, overridden by a task's settings.

    Returns:
        name → (N,), such as ``start`` in seconds.
    """

    def __call__(
        self, ids: Sequence[str], /, *, prepare: Mapping[str, Any], dataset: Mapping[str, Any]
    ) -> Mapping[str, NDArray[Any]]: ...


class StreamFactory(Protocol):
    """``Plugin.stream``: windows of a live recording.

    Args:
        names: of all columns of the recording; the plugin selects the channels.
        fs: sampling rate of each, in Hz.
        prepare: the recipe's section.
        dataset: the recipe's section, overridden by a task's settings.
        reader: the settings of ``scan`` in the run's index, or empty.

    Raises:
        UsageError: if the settings need future samples, or no column is a known channel.
    """

    def __call__(
        self,
        names: Sequence[str],
        fs: float,
        /,
        *,
        prepare: Mapping[str, Any],
        dataset: Mapping[str, Any],
        reader: Mapping[str, Any],
    ) -> Stream: ...


class Save(Protocol):
    """``Plugin.save``: writes a recording that is a Python object, to be read as any file is.

    Args:
        recording: any object.
        folder: where to write.
        stem: the file's name, without suffix.

    Returns:
        the file; None if the plugin does not know such an object.

    Raises:
        UsageError: if it does, but the object cannot be written.
    """

    def __call__(self, recording: object, folder: Path, stem: str, /) -> Path | None: ...


class Look(Protocol):
    """``Plugin.look``: draws the result of ``prepare`` for an item.

    Args:
        files: the item's own, absolute. They may identify a patient: no drawing shows them.
        arrays: the prepared arrays of the item.
        out: the folder to draw into; create it.

    Returns:
        the files written; none if there is nothing to draw.
    """

    def __call__(
        self, files: Sequence[Path], arrays: Mapping[str, np.ndarray], out: Path, /
    ) -> Sequence[Path]: ...


class Measure(Protocol):
    """A value of ``Plugin.measures``, called as ``measure(arrays, **settings)``.

    Args:
        arrays: the prepared arrays of an item.

    Returns:
        table → column → (N,); the same tables, columns and types for every item.
    """

    def __call__(
        self, arrays: Mapping[str, np.ndarray], /, *no: Any, **settings: Any
    ) -> Mapping[str, Mapping[str, NDArray[Any]]]: ...


class Explain(Protocol):
    """``Plugin.explain``: draws the contribution of each instance of an item.

    Args:
        files: the item's own, absolute, as in `Look`.
        coords: (I, 2) coordinates of each instance.
        tile: edge length of an instance in the unit of ``coords``; None if unknown.
        scores: (I,) in 0 … 1.
        out: the folder to draw into; create it.

    Keyword parameters, if it has them: ``unit`` of the coordinates; ``raw`` (I,), of which
    ``scores`` are then the ranks; ``named``, the class that they speak for.

    Returns:
        the files written.

    Raises:
        MedclError: if it cannot be drawn; costs this item only.
    """

    def __call__(
        self,
        files: Sequence[Path],
        coords: NDArray[np.float64],
        tile: float | None,
        scores: NDArray[np.float64],
        out: Path,
        /,
    ) -> Sequence[Path]: ...


class Thumbnail(Protocol):
    """``Plugin.thumbnail``: an item at a glance, with its instances' scores over it.

    Args:
        files, coords, tile, scores: as in `Explain`.
        unit: of the coordinates.

    Returns:
        (H, W, 3) uint8, of some hundred pixels.

    Raises:
        MedclError: if it cannot be drawn.
    """

    def __call__(
        self,
        files: Sequence[Path],
        coords: NDArray[np.float64],
        tile: float | None,
        scores: NDArray[np.float64],
        /,
        *,
        unit: str = "px",
    ) -> NDArray[np.uint8]: ...


class Preview(Protocol):
    """``Plugin.preview``: samples next to their views, for the report.

    A keyword parameter ``encoder`` receives the trained encoder, or None; a keyword parameter
    ``axes`` the `medcl.plugin.Axes` of each sample, or None where the samples are no curves.

    Args:
        x: (B, ...) samples as `Samples.read` gives them.
        views: the recipe's.
    """

    def __call__(self, x: Tensor, views: Views, /) -> Figure: ...


class Overlay(Protocol):
    """``Plugin.overlay``: draws a mask and its prediction over the image.

    Args:
        x: (C, *space) a sample as `Samples.read` gives it.
        truth: (*space) int64, −1 where it is unknown.
        predicted: (*space) int64.
        classes: names, the background first.

    Returns:
        a figure, and its caption: what is shown, and on which scale.
    """

    def __call__(
        self,
        x: NDArray[Any],
        truth: NDArray[Any],
        predicted: NDArray[Any],
        classes: Sequence[str],
        /,
    ) -> tuple[Figure, str]: ...


class WriteMasks(Protocol):
    """``Plugin.write_masks``: predicted masks of an item, on the grid of its own files.

    Args:
        files: the item's own, absolute, as in `Look`.
        arrays: the prepared arrays of the item.
        masks: sample id → (*space) uint8, of all samples of the item.
        classes: names, the background first.
        out: path of the result without a suffix.
        to: the format; the plugin says which it knows.

    Returns:
        the files written.

    Raises:
        UsageError: for an unknown format, or a missing package.
        MedclError: if this item cannot be written in that format; costs this item only.
    """

    def __call__(
        self,
        files: Sequence[Path],
        arrays: Mapping[str, np.ndarray],
        masks: Mapping[str, NDArray[Any]],
        classes: Sequence[str],
        out: Path,
        to: str,
        /,
    ) -> Sequence[Path]: ...


class Export(Protocol):
    """A value of ``Plugin.exports``: writes a run or a study of masks for other software.

    Raises:
        UsageError: for an existing folder, or a network that the format does not have.
    """

    def __call__(self, trained: Trained, out: Path, /) -> Path: ...
