"""Predict a signal as it arrives: from a pipe, or from a file that is still being written.

One JSON object and line per window, null for unknown values. Memory use does not grow with the
stream: the plugin's `medcl.plugin.Stream` keeps the length of one window.
"""

from __future__ import annotations

import io
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from medcl.errors import UsageError
from medcl.ingestion import recorded_reader
from medcl.predict.batch import predictor_of
from medcl.probe.own_classifier import own_classifier, task_of
from medcl.registry import resolve
from medcl.run import Run, Trained

Format = Literal["csv", "f32"]
BYTES = 2**16
"""Maximum number of bytes per read."""
POLL = 0.1
WINDOWS = 32


def follow(
    model: Trained,
    source: Path,
    out: Path | None = None,
    *,
    fs: float | None = None,
    columns: Sequence[str] | None = None,
    format: Format = "csv",
    wait: float = 10.0,
    task: str | None = None,
    embeddings: bool = True,
    device: str = "auto",
) -> int:
    """Write a line for each complete window, until the stream ends; return their number.

    Args:
        model: a finished run, or a study, whose plugin can stream. The
            patient of a stream is unknown: all folds of a study predict it.
        source: a file that may still grow, or ``-`` for standard input.
        out: lines are appended to it; None for standard output.
        fs: samples per second of each channel; never guessed.
        columns: names of the channels in order; for a CSV with a header, the columns to read, and
            ``NAME=CHANNEL`` to rename one. The plugin knows other channel names.
        format: "csv": one line per sample, columns separated by comma, semicolon or tab; "f32":
            little-endian float32, channels of a sample adjacent.
        wait: seconds without growth after which a file counts as complete.
        task: see `medcl.predict.batch.predict`.
        embeddings: True to write embeddings.
        device: see `medcl.embeddings.embeddings.embed`.

    Raises:
        UsageError: if the plugin cannot stream, or the sampling rate or the channels are not given.
    """
    plugin = model.plugin
    if plugin.stream is None:
        raise UsageError(f"Plugin '{plugin.name}' cannot predict streams: give recordings.")
    if fs is None or not fs > 0:
        raise UsageError("A stream does not say its sampling rate: give --fs.")
    settings = model.dataset_settings(task_of(model, task))
    own = own_classifier(model, task) if isinstance(model, Run) and task else None
    if own is not None and own.by != "sample":
        raise UsageError(
            f"'{task}' was probed by {own.by}, and a stream has windows alone: predict the file."
        )
    predictor = predictor_of(model, task, device, known=False)
    written = 0
    with ExitStack() as stack:
        raw = sys.stdin.buffer if str(source) == "-" else stack.enter_context(_opened(source))
        lines = sys.stdout if out is None else stack.enter_context(out.open("a", encoding="utf-8"))
        blocks = _blocks(raw, wait if str(source) != "-" else None)
        names, chunks = _floats(blocks, columns) if format == "f32" else _csv(blocks, columns)
        cutter = resolve(plugin.stream)(
            names,
            fs,
            prepare=model.recipe.prepare,
            dataset=settings,
            reader=recorded_reader(model) or {},
        )
        for chunk in chunks:
            starts, x = cutter.push(chunk)
            for first in range(0, len(x), WINDOWS):
                part = slice(first, first + WINDOWS)
                predictions, z = predictor({"x": x[part]}, None)
                table = {"start": starts[part], **predictions}
                for row in range(len(starts[part])):
                    line = {name: _rounded(values[row]) for name, values in table.items()}
                    if embeddings and z is not None:
                        line["embedding"] = [_rounded(value) for value in z[row]]
                    lines.write(json.dumps(line, allow_nan=False) + "\n")
                lines.flush()
                written += len(starts[part])
    return written


def _rounded(value: Any) -> Any:
    """A JSON value; JSON has no NaN: unknown values are null."""
    if value is None or isinstance(value, str):
        return value
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageError(f"{path} cannot be followed ({error.strerror}).") from None


def _blocks(raw: IO[bytes], wait: float | None) -> Iterator[bytes]:
    """Bytes as they come. A file is read again at its end until it has not grown for ``wait``."""
    read = raw.read1 if isinstance(raw, io.BufferedIOBase) else raw.read
    since = time.monotonic()
    while True:
        block = read(BYTES)
        if block:
            yield block
            since = time.monotonic()
        elif wait is None or time.monotonic() - since >= wait:
            return
        else:
            time.sleep(min(POLL, wait))


def _floats(
    blocks: Iterator[bytes], columns: Sequence[str] | None
) -> tuple[Sequence[str], Iterator[NDArray[np.float32]]]:
    if not columns:
        raise UsageError("Raw numbers do not say their channels: give --columns.")

    def chunks() -> Iterator[NDArray[np.float32]]:
        rest, size = b"", 4 * len(columns)
        for block in blocks:
            data = rest + block
            whole = len(data) // size * size
            rest = data[whole:]
            yield np.frombuffer(data[:whole], "<f4").reshape(-1, len(columns)).T

    return columns, chunks()


def _csv(
    blocks: Iterator[bytes], columns: Sequence[str] | None
) -> tuple[Sequence[str], Iterator[NDArray[np.float32]]]:
    """Names and chunks (C, n) of lines of numbers. What is no number is a missing sample."""
    lines = _lines(blocks)
    first = next(lines, b"")
    head, _, body = first.partition(b"\n")
    separator = next((s for s in (b";", b"\t", b",") if s in head), b",")
    fields = [field.decode("utf-8", "replace").strip(' "\r') for field in head.split(separator)]
    comma = separator != b","
    if all(_is_number(field, comma) for field in fields):
        if columns is None:
            raise UsageError("The stream has no header that names its channels: give --columns.")
        if len(columns) != len(fields):
            raise UsageError(f"--columns names {len(columns)} channels; lines hold {len(fields)}.")
        names, body = list(columns), first
        taken = list(range(len(fields)))
    else:
        # What stands in the header counts before the "=" that may part it from another name.
        wanted = {c: c if c in fields else c.partition("=")[0].strip() for c in columns or fields}
        unknown = [name for name in wanted.values() if name not in fields]
        if unknown:
            raise UsageError(f"--columns: the header has no '{unknown[0]}', it has {fields}.")
        names = [c if c == name else c.partition("=")[2].strip() for c, name in wanted.items()]
        taken = [fields.index(name) for name in wanted.values()]

    def chunks() -> Iterator[NDArray[np.float32]]:
        blocks = filter(None, chain([body], lines))
        first = next(blocks, b"")
        held = len(first.partition(b"\n")[0].rstrip(b"\r" + separator).split(separator))
        if held > len(fields):
            raise UsageError(
                f"The stream's header names {len(fields)} columns and its lines hold {held}. "
                "Decimal commas need columns that are parted by semicolons or tabs."
            )
        for block in chain([first] if first else [], blocks):
            yield _numbers(block, separator, taken, len(fields), comma)

    return names, chunks()


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Blocks of whole lines; what is left without an end is a line too."""
    rest = b""
    for block in blocks:
        data = rest + block
        end = data.rfind(b"\n") + 1
        rest = data[end:]
        if end:
            yield data[:end]
    if rest.strip():
        yield rest + b"\n"


def _is_number(text: str, comma: bool) -> bool:
    try:
        float(text.replace(",", ".") if comma else text)
    except ValueError:
        return not text
    return True


def _numbers(
    block: bytes, separator: bytes, taken: Sequence[int], width: int, comma: bool
) -> NDArray[np.float32]:
    """The columns ``taken`` of lines of ``width``; a longer line ends there, a shorter lacks some.

    Returns:
        (columns, lines).
    """
    import polars as pl

    names = [f"c{i}" for i in range(width)]
    head = separator.join(name.encode() for name in names) + b"\n"  # without, the first line's rule
    frame = pl.read_csv(
        head + block,
        separator=separator.decode(),
        schema=dict.fromkeys(names, pl.String),
        truncate_ragged_lines=True,
        quote_char=None,
        encoding="utf8-lossy",
    )
    columns = [pl.col(names[i]).str.strip_chars(' "\r') for i in taken]
    if comma:  # 0,5;0,7
        columns = [column.str.replace(",", ".", literal=True) for column in columns]
    cast = frame.select(
        c.cast(pl.Float32, strict=False).alias(f"{i}") for i, c in enumerate(columns)
    )
    return cast.fill_null(float("nan")).to_numpy().T
