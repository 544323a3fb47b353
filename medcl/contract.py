"""The types of a plugin's parts: what each ``"module:attribute"`` of a `Plugin` is callable as.

Nothing here is imported at run time by a plugin. A plugin lets mypy check its parts::

    if TYPE_CHECKING:
        from medcl import contract
        _dataset: contract.Dataset = dataset

``medcl plugins check NAME`` runs the same parts on a few items (`medcl.plugin_check`).

Leading parameters are given by position, so their names are free. Every keyword-only parameter of a
part is a setting: the recipe section of the same name may set it, and its default is the schema's
(`medcl.registry.checked`). Such a part is typed here with ``*no: Any, **settings: Any``, by which
mypy accepts any keyword-only parameters; it takes no further positional ones.

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

    from medcl.classifiers.contract import Classifier as BuiltClassifier
    from medcl.labels.outputs import Outputs
    from medcl.methods.contract import Method as BuiltMethod

X, BAG, COORDS, OK, TABLE = "x", "bag", "coords", "ok", "table"
"""The keys of a batch that the core reads; see `Batch`."""


class Batch(TypedDict, total=False):
    """What `Samples.read` returns. Only ``x`` must be there.

    A plugin may add keys of its own, (B, ...) each: for its own methods, which name them in
    ``needs``, and its own baselines. The core reads no other key than these.

    Attributes:
        x: (B, ...) the samples, float32, finite; of bags (I, F), the instances of all bags of the
            batch one after the other.
        bag: of bags alone, (I,) int64: which of the batch's bags each instance belongs to,
            0 … B−1 in ascending order. Each bag has an instance.
        coords: (B, 2), of bags (I, 2): where each tile or instance lies, in a unit that
            `Samples.facts` says; NaN where unknown.
        ok: (B,) bool, False where a sample could not be read and another stands in for it.
        table: (B, columns) float32, the columns of a clinical table (`medcl.archive.clinical`):
            the categorical ones first, −1 (categorical) or NaN (numeric) where missing.
    """

    x: np.ndarray
    bag: np.ndarray
    coords: np.ndarray
    ok: np.ndarray
    table: np.ndarray


class Prepare(Protocol):
    """``Plugin.prepare``: decode an item once; what it returns is stored under a content address.

    Called as ``prepare(root, files, fields, **settings)``, in worker processes.

    Args:
        root: the archive.
        files: those of the record, relative to ``root``, in its order.
        fields: the record's fields, its ``findings``, and as ``reader`` the settings of ``scan``.

    Returns:
        name → array of numbers or flags, none of objects. Same files and settings, same arrays. No
        array identifies a person.

    Raises:
        Exception: anything costs this item only. Its message is shown: it must name no person.
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
    """``Plugin.dataset``: lays out the samples of prepared items. Reads as little as it can.

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

    It draws from the generator that it is handed and from nothing else. For kind "none" it gives
    the sample without augmentation. All samples of a batch get views of one shape, on the batch's
    device, in its dtype. An unknown kind is a `UsageError`.
    """

    def __call__(self, *no: Any, **settings: Any) -> Views: ...


class EncoderFactory(Protocol):
    """A value of ``Plugin.encoders``, called as ``encoder(**settings)``.

    Returns:
        a module (B, ...) → (B, width) that takes what the views give, with an int attribute
        ``width``. In evaluation mode the features of a sample do not depend on the batch. Weights
        are drawn by torch's own generator alone. A setting ``weights: Path | None = None`` is a
        file to begin with; it is not asked for once the encoder is trained.
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

    One that is built on an encoder is called as ``classifier(encoder, example, outputs, ...)``, see
    `EncoderClassifierFactory`. Its attribute ``declares`` says which of the two it is, and what
    else it asks for (`medcl.classifiers.contract.Declares`).

    Args:
        example: a batch as tensors, for its shapes alone.
        outputs: what is to be predicted.
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


class Baseline(Protocol):
    """A value of ``Plugin.baselines``: engineered features to beat.

    Args:
        batch: what `Samples.read` returned, see `Batch`.

    Returns:
        (B, F), the same F for every batch of a dataset; NaN where a feature is not defined.
    """

    def __call__(self, batch: Mapping[str, np.ndarray], /) -> NDArray[Any]: ...


class Pictures(Protocol):
    """``Plugin.pictures``: small pictures of an item's parts, to find near-duplicates by.

    Args:
        arrays: of one item.

    Returns:
        locations (N,), as ``dataset`` finds them in a column ``keep``; and (N, S, S) uint8.
    """

    def __call__(
        self, arrays: Mapping[str, np.ndarray], /
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]: ...


class Where(Protocol):
    """``Plugin.where``, of plugins whose samples have no `Samples.where`: locations by sample id.

    Args:
        ids: (N,) of samples.
        prepare: the recipe's section.
        dataset: the recipe's section, a task's settings laid over it.

    Returns:
        name → (N,), such as ``start`` in seconds.
    """

    def __call__(
        self, ids: Sequence[str], /, *, prepare: Mapping[str, Any], dataset: Mapping[str, Any]
    ) -> Mapping[str, NDArray[Any]]: ...


class StreamFactory(Protocol):
    """``Plugin.stream``: windows of a signal that is still being recorded.

    Args:
        names: of all columns that arrive side by side; which are channels, the plugin knows.
        fs: samples a second of each, in Hz.
        prepare: the recipe's section.
        dataset: the recipe's section, a task's settings laid over it.
        reader: the settings of ``scan`` that the run's index was made with, or empty.

    Raises:
        UsageError: if these settings need what is yet to come, or no channel is known.
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


class Look(Protocol):
    """``Plugin.look``: draws what ``prepare`` found in an item.

    Args:
        files: the item's own, absolute. They may name a person: nothing that is drawn shows them.
        arrays: what ``prepare`` made of them.
        out: the folder to draw into; make it.

    Returns:
        the files written; none where there is nothing to see.
    """

    def __call__(
        self, files: Sequence[Path], arrays: Mapping[str, np.ndarray], out: Path, /
    ) -> Sequence[Path]: ...


class Explain(Protocol):
    """``Plugin.explain``: draws what each instance of an item counted for.

    Args:
        files: the item's own, absolute, as in `Look`.
        coords: (I, 2) where each instance lies.
        tile: side of an instance in the unit of ``coords``; None where unknown.
        scores: (I,) in 0 … 1.
        out: the folder to draw into; make it.

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


class Preview(Protocol):
    """``Plugin.preview``: samples beside their views, for the report.

    One with a keyword ``encoder`` is given the trained encoder, or None.

    Args:
        x: (B, ...) samples as `Samples.read` gives them.
        views: the recipe's.
    """

    def __call__(self, x: Tensor, views: Views, /) -> Figure: ...
