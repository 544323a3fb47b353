"""Detectors of beats by name, for ``prepare.detector``: medcl's own, and those of two libraries.

Each takes the leads of the heart (C, T), the best first, and gives positions (K,) int64, rising.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError
from medcl_biosignals.detect import pulse_peaks, r_peaks

Name = Literal["energy", "xqrs", "neurokit", "none"]
Find = Callable[[np.ndarray, float], NDArray[np.int64]]


@dataclass(frozen=True)
class Detector:
    """``r_peaks`` of an ECG; ``pulses`` of PPG and pressure."""

    r_peaks: Find
    pulses: Find


def xqrs(x: np.ndarray, fs: float) -> NDArray[np.int64]:
    """R peaks of the best lead by XQRS of the WFDB package."""
    from wfdb.processing import xqrs_detect

    if x.shape[1] < 2 * fs or not np.ptp(x[0]) > 0:
        return _nothing(x, fs)
    return _in_order(xqrs_detect(x[0].astype(np.float64), fs, verbose=False))


def neurokit(x: np.ndarray, fs: float) -> NDArray[np.int64]:
    """R peaks of the best lead by NeuroKit2's own method (Makowski 2021)."""
    return _neurokit("ecg_findpeaks", "ECG_R_Peaks", x, fs)


def neurokit_pulses(x: np.ndarray, fs: float) -> NDArray[np.int64]:
    """Systolic peaks of the best channel by NeuroKit2 (Elgendi 2013)."""
    return _neurokit("ppg_findpeaks", "PPG_Peaks", x, fs)


def _neurokit(function: str, key: str, x: np.ndarray, fs: float) -> NDArray[np.int64]:
    try:
        import neurokit2  # type: ignore[import-untyped]
    except ImportError as error:
        raise MedclError(
            "prepare.detector=neurokit needs NeuroKit2: pip install 'medcl[signals]'."
        ) from error
    if x.shape[1] < 2 * fs or not np.ptp(x[0]) > 0:
        return _nothing(x, fs)
    found = getattr(neurokit2, function)(x[0].astype(np.float64), sampling_rate=fs)
    return _in_order(found[key])


def _nothing(x: np.ndarray, fs: float) -> NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64)


def _in_order(positions: object) -> NDArray[np.int64]:
    return np.unique(np.asarray(positions, dtype=np.int64))


DETECTORS: Mapping[Name, Detector] = {
    "energy": Detector(r_peaks, pulse_peaks),
    "xqrs": Detector(xqrs, pulse_peaks),
    "neurokit": Detector(neurokit, neurokit_pulses),
    "none": Detector(_nothing, _nothing),
}
