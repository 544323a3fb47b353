"""The quality of signals: fits the model of `medcl_biosignals.heartlike`, and compares it.

    python benchmarks/biosignals/signal_quality.py --cinc2011 DEVELOP --cinc2017 DEVELOP --ppg PPG
        [--liu2022 DEVELOP] [--neurokit [METHOD …]] [--ecg-quality PYTHON] [--write]

Folders as they are unpacked: of PhysioNet/CinC 2011 (``labels.csv``, ``records/``: twelve leads,
acceptable or not), of CinC 2017 (``REFERENCE-v3.csv``, ``training2017/``: one lead, ``~`` is too
noisy to tell the rhythm), of PPG (BIDMC 01, Welltory), and of Liu 2022 (PPG of six rhythms; its
licence is not stated, so it is measured on and nothing is fitted to it).

ECG: a logistic model over `INDICES`. In CinC 2011 a record is as good as its worst lead, which is
taken by the model of the round before (multiple instances, as mi-SVM); in CinC 2017 a record is the
mean of its stretches. White, pink and brown noise are negatives too. PPG has no public grades:
recordings are positives, the same with noise at 0 and -6 dB, and noise alone, negatives; both are
SYNTHETIC, and the figure says no more than that. Figures are by tenfold cross-validation over
records, of PPG by leaving recordings out; intervals are 95% over records. ``--write`` stores the
fit on all.

``--neurokit`` adds NeuroKit2's methods, or those named, on the same records (minutes);
``--ecg-quality`` is a Python with the packages ``ecg-quality``, TensorFlow and ``tf_keras`` (its
networks were saved by Keras 2: TF_USE_LEGACY_KERAS=1). Each is given the better of two readings of
twelve leads, their mean and their worst.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, StratifiedKFold

from medcl.errors import MedclError
from medcl.metrics.bootstrap import Resampled, bootstrap
from medcl.metrics.metrics import ranking
from medcl.metrics.table import show
from medcl_biosignals import heartlike
from medcl_biosignals.filters import bandpass
from medcl_biosignals.prepare import prepare

FS = 125.0
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
USED = {"ECG": ("alike", "peaked"), "PPG": ("alike",)}
BANDS = {"ECG": (0.5, 40.0), "PPG": (0.5, 8.0)}
ROUNDS, FOLDS = 8, 10
DEGRADED = (0.0, -6.0)  # dB: signal over noise in the band, not acceptable any more
COLOURS = (0.0, 1.0, 2.0)  # white, pink, brown
METHODS = ("averageQRS", "templatematch", "dissimilarity", "zhao2018", "ho2025")
GRADES = {"Unacceptable": 0.0, "Barely acceptable": 0.5, "Excellent": 1.0}

ECG_QUALITY = """
import sys, numpy as np, neurokit2 as nk, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
from scipy.signal import resample_poly
from ecg_quality.ECGQualityChecker import ECGQualityChecker
x = np.load(sys.argv[1])  # (N, C, T) at 500 Hz
x = resample_poly(np.nan_to_num(x), 1, 2, axis=-1)
flat = np.ptp(x, axis=-1) < 1e-6
rows = x.reshape(-1, x.shape[-1])
clean = np.concatenate([nk.ecg_clean(row, sampling_rate=250) for row in rows])
for name, seconds in (("cnn2s", 2), ("cnn5s", 5), ("lstm2s", 2), ("oscnn2s", 2)):
    checker = ECGQualityChecker(name, stride=seconds, return_mode="score",
                                return_type="intervals", clean_data=False)
    parts = clean.reshape(-1, checker.input_length)  # as process_signal cuts, all at once
    score = checker.model.model.predict(parts, batch_size=512, verbose=0).reshape(len(parts), -1)
    small = np.ptp(parts, axis=1) < checker.min_window
    score = np.where(small, 0, 1 - score.mean(axis=1))
    score = score.reshape(*x.shape[:2], -1).mean(-1)
    np.save(sys.argv[2] + name + ".npy", np.where(flat, 0, score))
"""


@dataclass(frozen=True)
class Leads:
    """The stretches of records (N, C, S) and what is known of them."""

    x: np.ndarray  # (N, C, S, indices)
    gate: np.ndarray  # (N, C, S): parts, and neither hum nor artefact
    y: np.ndarray  # (N,) 1: acceptable


def indexed(windows: np.ndarray, fs: float, model: str) -> tuple[np.ndarray, np.ndarray]:
    """(N, n) → (N, indices), (N,)."""
    made, fit = heartlike.indices(windows, fs, model)
    return np.stack([made[name] for name in USED[model]], axis=-1), fit


def stretches(made: dict[str, np.ndarray], model: str) -> tuple[np.ndarray, np.ndarray]:
    """Of a prepared recording: (C, S, indices) and the gates (C, S)."""
    size = round(heartlike.SECONDS * FS)
    x = made["x"]
    size = min(size, x.shape[1])
    first = np.minimum(np.arange(0, x.shape[1], size), x.shape[1] - size)
    rows = [indexed(np.stack([lead[f : f + size] for f in first]), FS, model) for lead in x]
    parts = made["parts"].prod(axis=-1)
    blocks = (np.arange(parts.shape[1]) * 2.0 / heartlike.SECONDS).astype(int)
    blocks = np.minimum(blocks, len(first) - 1)
    whole = np.stack([parts[:, blocks == s].mean(axis=1) for s in range(len(first))], axis=1)
    return np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows]) * whole


def cinc2011(folder: Path) -> tuple[Leads, list[str]]:
    rows = list(csv.DictReader((folder / "labels.csv").open()))
    found = []
    for row in rows:
        files = [f"{row['record']}.hea", f"{row['record']}.dat"]
        try:
            made = prepare(folder / "records", files, {}, fs=FS, leads=LEADS)
            found.append(stretches(made, "ECG"))
        except MedclError as error:  # no lead holds a sample: of no worth
            print(f"{row['record']}: {error}", file=sys.stderr)
            found.append((np.zeros((12, 2, len(USED["ECG"]))), np.zeros((12, 2))))
    y = np.array([row["quality"] == "acceptable" for row in rows]).astype(int)
    x, gate = (np.stack(part) for part in zip(*found, strict=True))
    return Leads(x, gate, y), [row["record"] for row in rows]


def cinc2017(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Indices (W, indices) of all stretches, the record of each, labels of records."""
    rows = list(csv.reader((folder / "REFERENCE-v3.csv").open()))
    parts = []
    for name, _ in rows:
        files = [f"{name}.hea", f"{name}.mat"]
        made = prepare(folder / "training2017", files, {}, fs=FS, channels=1)
        x, gate = stretches(made, "ECG")
        parts.append((x[0], gate[0]))
    owner = np.repeat(np.arange(len(parts)), [len(x) for x, _ in parts])
    x, gate = (np.concatenate(part) for part in zip(*parts, strict=True))
    return x, gate, owner, [label for _, label in rows]


def noise(random: np.random.Generator, colour: float, size: tuple[int, int], model: str, fs: float):
    """Noise (N, n) of a power that falls with frequency to ``colour``, in the model's band."""
    n = 4 * size[1]
    frequency = np.fft.rfftfreq(n, 1 / fs)
    shape = np.concatenate([[0.0], frequency[1:] ** (-colour / 2)])
    spectrum = random.normal(size=(size[0], len(frequency), 2)) @ np.array([1, 1j]) * shape
    x = bandpass(np.fft.irfft(spectrum, n).astype(np.float32), fs, BANDS[model])
    x = x[:, size[1] : 2 * size[1]]
    return x / x.std(axis=1, keepdims=True)


def fitted(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[float, np.ndarray]:
    """Intercept and weights of a logistic model on standardised indices, for indices as they are.

    Raises:
        ValueError: if an index counts against a signal: each is higher in a better one.
    """
    mean, spread = x.mean(axis=0), x.std(axis=0)
    model = LogisticRegression(C=1.0).fit((x - mean) / spread, y, sample_weight=weight)
    by = model.coef_[0] / spread
    if (by < 0).any():
        raise ValueError(f"an index counts against the signal: {by}")
    return float(model.intercept_[0] - by @ mean), by


def balanced(source: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Each class of each source counts alike."""
    weight = np.zeros(len(y))
    for name in np.unique(source):
        for label in (0, 1):
            here = (source == name) & (y == label)
            weight[here] = 1 / max(here.sum(), 1)
    return weight * len(y) / weight.sum()


def chance(x: np.ndarray, model: tuple[float, np.ndarray]) -> np.ndarray:
    return 1 / (1 + np.exp(-(model[0] + x @ model[1])))


def fit_ecg(
    twelve: Leads, one: np.ndarray, one_y: np.ndarray, hiss: np.ndarray
) -> tuple[float, np.ndarray]:
    """By the worst lead of each twelve, single leads (N, indices), and noise."""
    leads, gate = twelve.x.mean(axis=2), twelve.gate.mean(axis=2)  # (N, C, indices), (N, C)
    intact = (gate > 0.5).all(axis=1)  # a flat lead says nothing about shape
    score = leads[..., 0]
    for _ in range(ROUNDS):
        worst = leads[np.arange(len(leads)), score.argmin(axis=1)][intact]
        x = np.concatenate([worst, one, hiss])
        y = np.concatenate([twelve.y[intact], one_y, np.zeros(len(hiss), int)])
        source = np.repeat([0, 1, 2], [len(worst), len(one), len(hiss)])
        model = fitted(x, y, balanced(source, y))
        score = leads @ model[1]
    return model


def by_record(values: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Means (N, ...) over the stretches of each record."""
    count = np.bincount(owner)
    if values.ndim == 1:
        return np.bincount(owner, values) / count
    return np.stack([np.bincount(owner, column) / count for column in values.T], axis=1)


def ecg(asked: argparse.Namespace) -> dict[str, object]:
    twelve, names = cinc2011(asked.cinc2011)
    x, gate, owner, labels = cinc2017(asked.cinc2017)
    kind = np.array(labels)
    one, one_y = by_record(x, owner), (kind != "~").astype(int)
    random = np.random.default_rng(0)
    size = round(heartlike.SECONDS * FS)
    hiss = np.concatenate(
        [indexed(noise(random, c, (100, size), "ECG", FS), FS, "ECG")[0] for c in COLOURS]
    )
    out11, out17 = np.zeros(len(twelve.y)), np.zeros(len(one_y))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    pairs = zip(folds.split(names, twelve.y), folds.split(one, one_y), strict=True)
    for (train, test), (train17, test17) in pairs:
        part = Leads(twelve.x[train], twelve.gate[train], twelve.y[train])
        model = fit_ecg(part, one[train17], one_y[train17], hiss)
        lead = (chance(twelve.x[test], model) * twelve.gate[test]).mean(axis=2)
        out11[test] = lead.min(axis=1)
        mine = np.isin(owner, test17)
        out17[test17] = by_record(chance(x, model) * gate * mine, owner)[test17]
    print("| ECG, AUROC of acceptable against not | CinC 2011 | medcl − it | CinC 2017 (`~`) |")
    print("|---|---|---|---|")
    ours = resampled(twelve.y, out11)
    scores = f"{shown(ours)} | – | {shown(resampled(one_y, out17))}"
    print(f"| medcl quality, cross-validated | {scores} |", flush=True)
    model = fit_ecg(twelve, one, one_y, hiss)
    final = by_record(chance(x, model) * gate, owner)
    for label, what in {"N": "sinus", "A": "AF", "O": "other rhythm", "~": "noisy"}.items():
        values = np.percentile(final[kind == label], [25, 50, 75])
        print(f"CinC 2017 {what}: quality {values[1]:.2f} ({values[0]:.2f} to {values[2]:.2f})")
    if asked.neurokit is not None or asked.ecg_quality:
        others(asked, twelve.y, names, ours)
    return entry("ECG", model, roc_auc_score(twelve.y, out11), roc_auc_score(one_y, out17))


def entry(kind: str, model: tuple[float, np.ndarray], *auroc: float) -> dict[str, object]:
    weights = {name: round(float(w), 3) for name, w in zip(USED[kind], model[1], strict=True)}
    return {
        "intercept": round(model[0], 3),
        "weights": weights,
        "auroc": [round(float(a), 3) for a in auroc],
    }


def resampled(y: np.ndarray, score: np.ndarray) -> Resampled:
    """The AUROC of records, which are as good as people here, and its resamples."""
    target = y.astype(bool)
    return bootstrap(lambda w: {"auroc": ranking(target, score, w)[0]}, np.arange(len(y)))


def shown(of: Resampled) -> str:
    return show(of.interval("auroc"))


def others(asked: argparse.Namespace, y: np.ndarray, names: Sequence[str], ours: Resampled) -> None:
    """NeuroKit2's and ecg-quality's grades of CinC 2011."""
    import wfdb

    root = asked.cinc2011 / "records"
    x = np.stack([wfdb.rdrecord(str(root / name)).p_signal.T for name in names])  # (N, 12, T)
    grades: dict[str, np.ndarray] = {}
    if asked.ecg_quality:
        with tempfile.TemporaryDirectory() as folder:
            np.save(f"{folder}/x.npy", x.astype(np.float32))
            command = [asked.ecg_quality, "-c", ECG_QUALITY, f"{folder}/x.npy", f"{folder}/out-"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            for file in sorted(Path(folder).glob("out-*.npy")):
                grades[f"ecg-quality {file.stem[4:]}"] = np.load(file)
    methods = [] if asked.neurokit is None else asked.neurokit or METHODS
    graded = chain(grades.items(), ((f"NeuroKit2 {m}", neurokit(x, m)) for m in methods))
    for name, grade in graded:
        readings = {"mean": grade.mean(axis=1), "worst": grade.min(axis=1)}
        best = max(readings, key=lambda how: roc_auc_score(y, readings[how]))
        theirs = resampled(y, readings[best])
        gain = show(ours.minus(theirs, "auroc"), signed=True)
        print(f"| {name}, {best} of the leads | {shown(theirs)} | {gain} | – |", flush=True)


def neurokit(x: np.ndarray, method: str) -> np.ndarray:
    """(N, 12) grades of leads; what it cannot grade is worth nothing."""
    import neurokit2 as nk

    warnings.filterwarnings("ignore")
    out = np.zeros(x.shape[:2])
    for n, record in enumerate(x):
        for c, lead in enumerate(record):
            try:
                clean = nk.ecg_clean(lead, sampling_rate=500)
                grade = nk.ecg_quality(clean, sampling_rate=500, method=method)
                out[n, c] = (
                    GRADES[grade] if isinstance(grade, str) else np.nanmean(np.asarray(grade))
                )
            except Exception:  # flat, or too few beats for it
                out[n, c] = 0.0
    return np.nan_to_num(out)


def pulse_windows(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Stretches (N, n) of BIDMC and Welltory at 100 Hz, and the recording of each."""
    fs, size = 100.0, round(100.0 * heartlike.SECONDS)
    files = [(folder, "bidmc_01_Signals.csv", "PLETH")]
    files += [(p, "PPG.csv", "PPG-green") for p in sorted((folder / "welltory").glob("subject_*"))]
    found, owner = [], []
    for number, (root, file, lead) in enumerate(files):
        x = prepare(root, [file], {}, fs=fs, leads=(lead,))["x"][0]
        rows = x[: len(x) // size * size].reshape(-1, size)
        rows = rows[rows.std(axis=1) > 0]
        found.append(rows / rows.std(axis=1, keepdims=True))
        owner += [number] * len(rows)
    return np.concatenate(found), np.array(owner)


def degraded(random: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """The same with noise of each colour at each level, and noise alone (M, n)."""
    made = []
    for colour in COLOURS:
        made.append(noise(random, colour, x.shape, "PPG", 100.0))
        made += [
            x + 10 ** (-level / 20) * noise(random, colour, x.shape, "PPG", 100.0)
            for level in DEGRADED
        ]
    return np.concatenate(made)


def ppg(asked: argparse.Namespace) -> dict[str, object]:
    random = np.random.default_rng(0)
    good, owner = pulse_windows(asked.ppg)
    bad = degraded(random, good)
    x, fit = indexed(np.concatenate([good, bad]).astype(np.float32), 100.0, "PPG")
    y = np.repeat([1, 0], [len(good), len(bad)])
    group = np.concatenate([owner, np.tile(owner, len(bad) // len(good))])
    out = np.zeros(len(y))
    one = np.zeros(len(y), int)
    for train, test in GroupKFold(FOLDS).split(x, y, group):
        model = fitted(x[train], y[train], balanced(one[train], y[train]))
        out[test] = chance(x[test], model) * fit[test]
    model = fitted(x, y, balanced(one, y))
    print("| PPG, AUROC of recordings against degraded ones and noise | |\n|---|---|")
    print(f"| BIDMC and Welltory, recordings left out | {roc_auc_score(y, out):.3f} |")
    if asked.liu2022:
        rows = []
        for file in sorted(asked.liu2022.glob("*.npz")):
            ppg = np.load(file)["ppg"].astype(np.float32)
            picked = ppg[random.choice(len(ppg), min(60, len(ppg)), replace=False)]
            picked = bandpass(picked - np.median(picked, 1, keepdims=True), 100.0, BANDS["PPG"])
            rows.append(picked[:, 200:800])
        real = np.concatenate(rows)
        real = real[real.std(axis=1) > 1e-6]
        real /= real.std(axis=1, keepdims=True)
        both = np.concatenate([real, degraded(random, real)]).astype(np.float32)
        indices, fit = indexed(both, 100.0, "PPG")
        seen = chance(indices, model) * fit
        label = np.repeat([1, 0], [len(real), len(both) - len(real)])
        print(f"| Liu 2022, 28 other people, six rhythms | {roc_auc_score(label, seen):.3f} |")
    return entry("PPG", model, roc_auc_score(y, out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cinc2011", type=Path, required=True)
    parser.add_argument("--cinc2017", type=Path, required=True)
    parser.add_argument("--ppg", type=Path, required=True)
    parser.add_argument("--liu2022", type=Path)
    parser.add_argument("--neurokit", nargs="*", metavar="METHOD", help=f"of {METHODS}")
    parser.add_argument("--ecg-quality", metavar="PYTHON")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    models = {"ECG": ecg(asked), "PPG": ppg(asked)}
    text = yaml.safe_dump(models, sort_keys=False)
    print(text)
    if asked.write:
        path = Path(heartlike.__file__).with_suffix(".yaml")
        head = "".join(line for line in path.open() if line.startswith("#"))
        path.write_text(head + text)


if __name__ == "__main__":
    main()
