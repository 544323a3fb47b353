"""Windows of a signal that is still being recorded: causal, in constant memory.

The batch pipeline (`medcl_biosignals.prepare`) filters forwards and backwards, which needs the
future, unless the recipe says ``prepare.phase: causal``. Here the same notch and Butterworth
band-pass of each channel's kind run forwards alone and keep their state from chunk to chunk. So
windows are those of the file if its recipe is causal; else waves come late by a few tens of
milliseconds and embeddings only resemble the file's. However a stream is cut, they are the same.
Resampling is the same linear-phase filter as in the batch pipeline; it waits for the ten samples
(at the slower of the two rates) that it looks ahead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal as sp

from medcl.errors import UsageError
from medcl_biosignals.filters import sections
from medcl_biosignals.leads import by_kind, choose
from medcl_biosignals.naming import meant
from medcl_biosignals.readers.columns import Look, roles
from medcl_biosignals.readers.contract import BadSignal, Settings
from medcl_biosignals.readers.measures import known_unit
from medcl_biosignals.scan import settings_of
from medcl_biosignals.vocabulary import together, vocabulary

Floats = NDArray[np.float64]
_STILL = 1e-6
_HALF = 10  # samples of the slower rate to either side, as scipy.signal.resample_poly


class Filter:
    """Causal filters over (C, n) chunks, one a channel, at rest on zero."""

    def __init__(self, sections: Sequence[Floats]) -> None:
        """``sections``: of each channel (S, 6) second-order sections; none leave it as it is."""
        self.sos = tuple(sections)
        self.state = [np.zeros((len(sos), 2)) for sos in sections]

    def push(self, x: Floats) -> Floats:
        """(C, n) → (C, n)."""
        if not x.shape[1]:
            return x
        y = x.copy()
        for c, sos in enumerate(self.sos):
            if len(sos):
                y[c], self.state[c] = sp.sosfilt(sos, x[c], zi=self.state[c])
        return y


class Resampler:
    """`scipy.signal.resample_poly` of a signal that comes in chunks; zero before its beginning."""

    def __init__(self, channels: int, fs: float, to: float) -> None:
        ratio = Fraction(to / fs).limit_denominator(1000)
        self.up, self.down = ratio.numerator, ratio.denominator
        slower = max(self.up, self.down)
        self.half = _HALF * slower
        if slower == 1:
            return
        taps = sp.firwin(2 * self.half + 1, 1 / slower, window=("kaiser", 5.0)) * self.up
        # Of output m the inputs from base down: x[base − j]·taps[half + m·down − (base − j)·up].
        self.reach = 2 * self.half // self.up + 1
        self.taps = np.zeros((self.up, self.reach))
        for phase in range(self.up):  # (m·down + half) mod up: how far base·up lies behind
            mine = taps[phase :: self.up]
            self.taps[phase, : len(mine)] = mine
        self.held = np.zeros((channels, self.reach))  # the last inputs; zeros before the first
        self.inputs = self.outputs = 0

    def push(self, x: Floats) -> Floats:
        """(C, n) → (C, about n·up/down)."""
        if self.up == self.down:
            return x
        joined = np.concatenate([self.held, x], axis=1)
        first = self.inputs - self.held.shape[1]  # the number of joined's first sample
        self.inputs += x.shape[1]
        count = max((self.inputs * self.up - self.half - 1) // self.down + 1 - self.outputs, 0)
        m = np.arange(self.outputs, self.outputs + count)
        base, phase = np.divmod(m * self.down + self.half, self.up)
        at = (base - first)[:, None] - np.arange(self.reach)  # (M, reach)
        y = np.einsum("cmr,mr->cm", joined[:, at], self.taps[phase])
        self.outputs += count
        # The next output looks back from (outputs·down + half) // up.
        lowest = (self.outputs * self.down + self.half) // self.up - self.reach + 1
        self.held = joined[:, max(lowest - first, 0) :]
        return y


class SignalStream:
    """See `stream`."""

    def __init__(
        self,
        slots: Sequence[int | None],
        fs: float,
        to: float,
        filters: Sequence[Floats],
        length: int,
        stride: int,
        signs: Sequence[int] | None = None,
    ) -> None:
        """``signs``: −1 for a slot whose channel is recorded the other way up."""
        self.slots = tuple(slots)
        self.present = [slot is not None for slot in slots]
        upright = [1.0] * len(slots) if signs is None else [float(sign) for sign in signs]
        self.signs = np.array(upright)[self.present][:, None]
        self.fs, self.to, self.length, self.stride = fs, to, length, stride
        channels = sum(self.present)
        self.filter, self.resampler = Filter(filters), Resampler(channels, fs, to)
        self.offset = np.full((channels, 1), np.nan)  # each channel's first value
        self.last = np.zeros((channels, 1))
        self.lost = np.zeros((channels, 0), dtype=bool)  # of inputs that outputs are to come of
        self.lost_first = 0
        self.x = np.zeros((channels, 0))  # of the next windows, at the new rate
        self.gone = np.zeros((channels, 0), dtype=bool)
        self.top = np.zeros((channels, 1))  # the largest value up to x's first sample
        self.first = 0  # the number of x's first sample
        self.made = 0  # samples at the new rate so far

    def push(self, chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `medcl.plugin.Stream.push`."""
        raw = np.asarray(chunk, np.float64)[[slot for slot in self.slots if slot is not None]]
        raw = raw * self.signs
        missing = ~np.isfinite(raw)
        y = self.resampler.push(self.filter.push(self._held(raw, missing)))
        gone = self._gone(missing, y.shape[1])
        y[gone] = 0.0
        self.x = np.concatenate([self.x, y], axis=1)
        self.gone = np.concatenate([self.gone, gone], axis=1)
        return self._windows()

    def _held(self, raw: Floats, missing: NDArray[np.bool_]) -> Floats:
        """Relative to the first value, so that filters begin at rest; a gap holds the last one."""
        for c in np.flatnonzero(np.isnan(self.offset[:, 0])):
            here = np.flatnonzero(~missing[c])
            if len(here):
                self.offset[c] = raw[c, here[0]]
        joined = np.concatenate([self.last, raw - self.offset], axis=1)
        known = np.concatenate([np.ones_like(self.last, dtype=bool), ~missing], axis=1)
        at = np.maximum.accumulate(np.where(known, np.arange(joined.shape[1]), 0), axis=1)
        held = np.take_along_axis(joined, at, axis=1)
        self.last = held[:, -1:].copy()
        return held[:, 1:]

    def _gone(self, missing: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
        """Which of the next ``count`` new samples cover a missing old one."""
        self.lost = np.concatenate([self.lost, missing], axis=1)
        m = np.arange(self.made, self.made + count)
        left = np.floor(m * self.fs / self.to).astype(np.int64) - self.lost_first
        right = np.ceil((m + 1) * self.fs / self.to).astype(np.int64) - self.lost_first
        total = np.pad(self.lost.cumsum(axis=1), ((0, 0), (1, 0)))
        last = total.shape[1] - 1
        gone = total[:, np.clip(right, 0, last)] > total[:, np.clip(left, 0, last)]
        self.made += count
        drop = int(np.clip(np.floor(self.made * self.fs / self.to) - self.lost_first, 0, last))
        self.lost, self.lost_first = self.lost[:, drop:], self.lost_first + drop
        return gone

    def _windows(self) -> tuple[np.ndarray, np.ndarray]:
        """The windows that are complete, less those that touch a gap in all channels."""
        have = self.x.shape[1]
        count = max((have - self.length) // self.stride + 1, 0)
        start = np.arange(count) * self.stride
        at = start[:, None] + np.arange(self.length)  # (K, T)
        gap = np.atleast_1d(self.gone.all(axis=0))
        whole = ~gap[at].any(axis=1) if count else np.zeros(0, dtype=bool)
        x = self.x[:, at[whole]].transpose(1, 0, 2)  # (K, P, T)
        starts = (self.first + start[whole]) / self.to
        tops = np.maximum.accumulate(np.concatenate([self.top, np.abs(self.x)], axis=1), axis=1)
        scaled = self._scaled(x, tops[:, start[whole] + self.length].T[..., None])
        step = count * self.stride  # ≤ have, as a stride is no longer than a window
        self.top = tops[:, step : step + 1]
        self.x, self.gone, self.first = self.x[:, step:], self.gone[:, step:], self.first + step
        return starts, scaled

    def _scaled(self, x: Floats, top: Floats) -> NDArray[np.float32]:
        """The z-score of each window and channel, absent channels zero: (K, C, T).

        ``top`` (K, P, 1) is the largest value so far: a window that hardly moves beside it is
        still.
        """
        x = x - x.mean(axis=-1, keepdims=True)
        spread = x.std(axis=-1, keepdims=True)
        out = np.zeros((len(x), len(self.slots), self.length), dtype=np.float32)
        out[:, self.present] = np.divide(
            x, spread, out=np.zeros_like(x), where=spread > _STILL * top
        )
        return out


def stream(
    names: Sequence[str],
    fs: float,
    *,
    prepare: Mapping[str, Any],
    dataset: Mapping[str, Any],
    reader: Mapping[str, Any] | None = None,
) -> SignalStream:
    """The causal counterpart of a recipe's ``prepare`` and ``dataset``.

    ``dataset.quality`` is not applied: it compares with the whole recording. The anomaly score
    tells bad windows.

    Args:
        names: of what comes side by side, as recorded. Times, counters and what else is no signal
            by its name are left out, as in a table.
        fs: its sampling rate in Hz.
        prepare: the recipe's section.
        dataset: the recipe's section.
        reader: what the run's index was told of its files; of it ``columns`` counts if the stream
            has all of them, and ``vocabulary``.

    Raises:
        UsageError: if no channel is one of the recipe's, or the windows need what is yet to come:
            beats, the recording's scale, or more than a window's length between two.
    """
    if dataset["kind"] != "window" or dataset["scale"] != "window":
        raise UsageError(
            "A stream gives windows, each scaled by itself: it needs a run (and task) with "
            "dataset.kind=window and dataset.scale=window."
        )
    leads = prepare["leads"]
    known = vocabulary((reader or {}).get("vocabulary"))
    signals = _signals(names, reader or {})
    units = [known_unit(unit) for _, _, unit in signals]
    called = [
        meant(name, known, unit=unit, fs=fs)
        for name, unit in zip(together([name for _, name, _ in signals]), units, strict=True)
    ]
    kinds = [channel.kind for channel in called]
    picked = (
        choose([channel.name for channel in called], leads, kinds, known)
        if leads
        else by_kind(kinds, prepare["channels"])
    )
    if all(pick is None for pick in picked):
        raise UsageError(
            f"None of the recipe's channels ({', '.join(leads or ())}) is among those of the "
            f"stream ({', '.join(names)}). Name them with --columns."
        )
    to = float(prepare["fs"])
    length = round(float(dataset["seconds"]) * to)
    stride = max(round(float(dataset["stride"]) * to), 1)
    if stride > length:
        raise UsageError("dataset.stride must not exceed dataset.seconds in a stream.")
    filters = []
    for pick in picked:
        if pick is not None:
            band = known.band(prepare["band"], kinds[pick.channel], fs)
            filters.append(sections(fs, band, prepare["notch"]))
    slots = [None if pick is None else signals[pick.channel][0] for pick in picked]
    signs = [1 if pick is None else pick.sign for pick in picked]
    return SignalStream(slots, fs, to, filters, length, stride, signs)


def _signals(names: Sequence[str], reader: Mapping[str, Any]) -> tuple[tuple[int, str, str], ...]:
    """(position, name, unit) of what is a signal, told as in a table with these columns."""
    told = settings_of({k: v for k, v in reader.items() if k in ("columns", "vocabulary")})
    if not set(told.columns) <= set(names):  # of files of another form
        told = Settings(vocabulary=told.vocabulary)
    try:
        return roles(names, [Look()] * len(names), told).channels
    except BadSignal:
        raise UsageError(
            f"No column of the stream is a signal by its name ({', '.join(names)}). Give --columns "
            "with the names of channels, or NAME=CHANNEL, such as value=PPG."
        ) from None
