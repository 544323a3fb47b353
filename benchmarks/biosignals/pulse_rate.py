"""Heart rate from pulses in PPG, against beats that something else counted.

    python benchmarks/biosignals/pulse_rate.py SHARED/ppg

Of each detector, the mean absolute error in beats a minute:

* ``bidmc_01_Signals.csv``: R peaks of lead II, in windows of 30 s; and how many R peaks have
  a pulse within 0.15 s of the usual delay, and pulses an R peak.
* ``welltory/``: the RR intervals of a chest strap, one rate a recording (the two clocks are not
  aligned); a phone's camera at 30 frames a second.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medcl_biosignals.detect import pulse_peaks, r_peaks
from medcl_biosignals.prepare import prepare

FS, WINDOW, NEAR = 100.0, 30.0, 0.15
Detector = Callable[[np.ndarray, float], NDArray[np.int64]]
DETECTORS: dict[str, Detector] = {"pulse_peaks": pulse_peaks, "r_peaks": r_peaks}


def signal(root: Path, file: str, leads: tuple[str, ...]) -> NDArray[np.float32]:
    """A recording's channels, cleaned as ever, at 100 Hz."""
    return prepare(root, [file], {}, fs=FS, leads=leads)["x"].astype(np.float32)


def rate(at: NDArray) -> float:
    """Beats a minute by the mean interval; a gap's or an artefact's are left out."""
    intervals = np.diff(at) / FS
    intervals = intervals[(intervals > 0.3) & (intervals < 2.0)]
    return 60.0 / float(intervals.mean()) if len(intervals) else float("nan")


def by_window(found: NDArray, truth: NDArray, length: int) -> NDArray[np.float64]:
    """Absolute errors of the rate in windows."""
    step = round(WINDOW * FS)
    starts = np.arange(0, length - step + 1, step)
    rates = [[rate(p[(p >= s) & (p < s + step)]) for p in (found, truth)] for s in starts]
    return np.abs(np.subtract(*np.array(rates).T))


def matched(found: NDArray, truth: NDArray) -> tuple[float, float, float]:
    """Shares of R peaks and of pulses that fit one another, and the delay that does it best.

    Pulses come late by the way of the wave and of the monitor's filter, by the same time each.
    """

    def share(delay: float, of: NDArray, among: NDArray) -> float:
        apart = np.abs((of + delay * FS)[:, None] - among[None]).min(axis=1)
        return float((apart <= NEAR * FS).mean())

    delays = np.arange(0.0, 1.0, 0.05)
    best = max(delays, key=lambda d: share(d, truth, found))
    return share(best, truth, found), share(-best, found, truth), float(best)


def main(root: Path) -> None:
    """Print the figures."""
    beats = r_peaks(signal(root, "bidmc_01_Signals.csv", ("II",)), FS)
    pleth = signal(root, "bidmc_01_Signals.csv", ("PLETH",))
    print(f"bidmc_01: {len(beats)} R peaks in {pleth.shape[1] / FS:.0f} s")
    for name, detect in DETECTORS.items():
        found = detect(pleth, FS)
        errors = by_window(found, beats, pleth.shape[1])
        sensitivity, ppv, delay = matched(found, beats)
        print(
            f"  {name}: {len(found)} pulses, MAE {errors.mean():.2f} bpm over {len(errors)} windows"
            f" (median {np.median(errors):.2f}, largest {errors.max():.2f}); sensitivity "
            f"{sensitivity:.3f}, PPV {ppv:.3f} at a delay of {delay:.2f} s"
        )
    folders = sorted((root / "welltory").glob("subject_*"))
    print(f"welltory: {len(folders)} recordings")
    truth = []
    made = []
    for folder in folders:
        rr = np.array((folder / "RR.txt").read_text().split(), float)
        truth.append(60_000 / rr.mean())
        colours = ("PPG-red", "PPG-green", "PPG-blue")
        made.append(signal(root, f"welltory/{folder.name}/PPG.csv", colours))
    for name, detect in DETECTORS.items():
        errors = np.abs([rate(detect(x, FS)) - t for x, t in zip(made, truth, strict=True)])
        print(
            f"  {name}: MAE {errors.mean():.2f} bpm, median {np.median(errors):.2f}, "
            f"within 5 bpm {int((errors <= 5).sum())} of {len(errors)}, largest {errors.max():.1f}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
