"""Recordings in Python objects, for ``medcl.predict`` and ``medcl.embed``: written as a file first.

So they are read as any file is, by the same rules, with the same findings, to the same samples.
The objects are known by the names of their classes: nothing is imported that is not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcl.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

_RATES = ("fs", "sampling_rate", "sampling_frequency", "sfreq", "samplerate")
_TIMES = ("time", "times", "t", "timestamp", "datetime", "seconds", "sample", "samples")


def save(recording: object, folder: Path, stem: str) -> Path | None:
    """Write a recording into a folder.

    Args:
        recording: a continuous recording of MNE-Python (``mne.io.Raw``); a table of pandas or
            polars, or a DataArray or Dataset of xarray: a channel a column, and the times as index,
            coordinate or column. Without times, ``attrs["fs"]`` gives the rate in Hz; units are in
            the names (``"II (mV)"``), in ``attrs["units"]``, or those of a Dataset's variables.
        folder: where to write it.
        stem: the file's name, without suffix.

    Returns:
        the file; None if this is no recording that is known here.

    Raises:
        UsageError: if it is, but cannot be written.
    """
    if _is(recording, "mne", "BaseRaw"):
        raw: Any = recording
        raw.save(folder / f"{stem}_raw.fif", fmt="double", overwrite=True, verbose="error")
        return folder / f"{stem}_raw.fif"
    file = folder / f"{stem}.parquet"
    if _is(recording, "polars", "DataFrame"):
        table: Any = recording
        table.write_parquet(file)
        return file
    frame = _frame(recording)
    if frame is None:
        return None
    _written(frame, file)
    return file


def _frame(recording: Any) -> pd.DataFrame | None:
    """As a table of pandas, its times as index, ``fs`` and ``units`` in its attributes."""
    if _is(recording, "pandas", "DataFrame"):
        return recording
    if _is(recording, "pandas", "Series"):
        frame = recording.to_frame(recording.name if recording.name is not None else "signal")
        frame.attrs = dict(recording.attrs)
        return frame
    if _is(recording, "xarray", "DataArray"):
        return _of_array(recording)
    if _is(recording, "xarray", "Dataset"):
        signals = {name: _of_array(recording[name]) for name in recording.data_vars}
        return _joined(signals, recording.attrs)
    return None


def _of_array(array: Any) -> pd.DataFrame:
    """One signal, or several along the dimension that is not of time."""
    if array.ndim not in (1, 2):
        raise UsageError(
            f"A DataArray of {array.ndim} dimensions is no recording: give time, or time and "
            "channel."
        )
    along = next((d for d in array.dims if str(d).lower() in _TIMES), None)
    if along is None:
        along = max(array.dims, key=lambda dimension: array.sizes[dimension])
    name = str(array.name) if array.name is not None else "signal"
    if array.ndim == 1:
        frame = array.to_series().to_frame(name)
    else:
        other = next(d for d in array.dims if d != along)
        frame = array.transpose(along, other).to_pandas()
        if other not in array.coords:
            frame.columns = [f"{name}{n + 1}" for n in range(array.sizes[other])]
        beside = array.coords.get("units")
        if beside is not None and beside.dims == (other,):
            units = dict(zip(frame.columns, map(str, beside.values), strict=True))
            frame.attrs = {"units": units}
    if along not in array.coords:
        frame = frame.reset_index(drop=True)
    frame.attrs = {**array.attrs, **frame.attrs}
    if isinstance(frame.attrs.get("units"), str):
        frame.attrs["units"] = dict.fromkeys(frame.columns, frame.attrs["units"])
    return frame


def _joined(signals: Mapping[Any, pd.DataFrame], attributes: Mapping[Any, Any]) -> pd.DataFrame:
    import pandas as pd

    if not signals:
        raise UsageError("A Dataset without a variable is no recording.")
    units: dict[Any, Any] = {}
    for frame in signals.values():
        units |= frame.attrs.get("units") or {}
    held = list(signals.values())
    if any(not frame.index.equals(held[0].index) for frame in held):
        raise UsageError(
            "The variables of this Dataset differ in their times: give one DataArray after another."
        )
    frame = pd.concat([frame.set_axis(frame.columns.map(str), axis=1) for frame in held], axis=1)
    frame.attrs = {**dict(attributes), "units": {str(name): unit for name, unit in units.items()}}
    return frame


def _written(frame: pd.DataFrame, file: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    fs = next((frame.attrs[name] for name in _RATES if name in frame.attrs), None)
    units = frame.attrs.get("units")
    columns = {}
    for n, name in enumerate(frame.columns):
        label = " ".join(map(str, name)) if isinstance(name, tuple) else str(name)
        unit = units.get(name) if isinstance(units, Mapping) else units
        label = f"{label} ({unit})" if unit else label
        if label in columns:
            raise UsageError(f"Two columns of the table are called '{label}'.")
        columns[label] = frame.iloc[:, n].to_numpy()
    times = _times(frame.index)
    if times is None and fs is not None:
        times = {"fs": [float(fs)] * len(frame)}
    try:
        parquet.write_table(pa.table({**(times or {}), **columns}), file)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise UsageError(
            f"The table cannot be written as Parquet ({type(error).__name__}): give columns of "
            "numbers, and of times."
        ) from None


def _times(index: Any) -> dict[str, Any] | None:
    """The columns that an index stands for; None where it only counts rows."""
    import pandas as pd

    if isinstance(index, pd.MultiIndex):
        return {
            str(name or f"level {n}"): index.get_level_values(n).to_numpy()
            for n, name in enumerate(index.names)
        }
    if isinstance(index, pd.TimedeltaIndex):
        return {"time [s]": index.total_seconds().to_numpy()}
    if isinstance(index, pd.DatetimeIndex):
        plain = index.tz_convert("UTC").tz_localize(None) if index.tz is not None else index
        return {"time": plain.to_numpy()}
    counts = isinstance(index, pd.RangeIndex) and (index.start, index.step) == (0, 1)
    return None if counts else {str(index.name or "time"): index.to_numpy()}


def _is(recording: object, package: str, name: str) -> bool:
    return any(
        kind.__name__ == name and kind.__module__.partition(".")[0] == package
        for kind in type(recording).__mro__
    )
