"""Text of loggers and their programs in all their layouts; columns that only the file's name names.

The files are written for the test after the makers' layouts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medcl.plugin import FileStat, Record, Reject
from medcl_biosignals.plugin import plugin
from medcl_biosignals.readers.choose import read
from medcl_biosignals.readers.contract import Settings

N = 600
X = np.random.default_rng(0).normal(size=(N, 4)).round(4)
NS = 664_000_000_000_000_000


def scanned(root: Path) -> Record | Reject:
    (file,) = root.iterdir()
    stat = FileStat(file.name, file.stat().st_size, 0)
    (row,) = [row for unit in plugin.units([stat]) for row in plugin.scan(root, unit)]
    return row


def lines(*columns: object, mark: str = "\t", end: str = "") -> str:
    return "\n".join(mark.join(map(str, row)) + end for row in zip(*columns, strict=True)) + "\n"


def clock(fs: float) -> list[str]:
    return [f"2021-01-20T12:{int(n / fs) // 60:02d}:{n / fs % 60:06.3f}" for n in range(N)]


LABCHART = (
    "Interval=\t{}\nExcelDateTime=\t4.4216e+04\t1/20/2021 12:00:00.0\nTimeFormat=\tStartOfBlock\n"
    "DateFormat=\t\nChannelTitle=\tECG\tFinger Pulse\nRange=\t10.000 mV\t5.000 V\n"
)
FILES: dict[str, tuple[str, str, float, str, str]] = {
    # name: file's name, text, rate, leads, units
    "ShimmerCapture": (
        "session.csv",
        "Shimmer\tShimmer\tShimmer\tShimmer\n"
        "Timestamp\tTimestamp\tLow Noise Accelerometer X\tECG LL-RA\n"
        "RAW\tCAL\tCAL\tCAL\nno units\tmSecs\tm/(sec^2)\tmVolts\n"
        + lines([64 * n for n in range(N)], [f"{n / 0.512:.4f}" for n in range(N)], *X.T[:2]),
        512, "ACC-x,II", "m/s2,mV",
    ),
    "Consensys": (
        "s.csv",
        "sep=,\nShimmer_8E5F_Timestamp_Unix_CAL,Shimmer_8E5F_PPG_A13_CAL,"
        "Shimmer_8E5F_Accel_LN_X_CAL,\nms,mV,m/(s^2),\n"
        + lines([f"{1611140400000 + n / 0.128:.4f}" for n in range(N)], X[:, 0], X[:, 1], mark=",",
                end=","),
        128, "PPG,ACC-x", "mV,m/s2",
    ),
    "Polar PPG": (
        "Polar_OH1_1_PPG.txt",
        "Phone timestamp;sensor timestamp [ns];channel 0;channel 1;channel 2;ambient\n"
        + lines(clock(50), [NS + 20_000_000 * n for n in range(N)], *X.T, mark=";"),
        50, "PPG0,PPG1,PPG2,ambient", "unknown,unknown,unknown,unknown",
    ),
    "Polar ACC that counts": (
        "Polar_H10_1_ACC.txt",
        "Phone timestamp;sensor timestamp [ns];X [mg];Y [mg];Z [mg]\n"
        + lines(clock(50), [NS + 20_000_000 * n for n in range(N)], [n % 9 for n in range(N)],
                [n % 7 for n in range(N)], [1000] * N, mark=";"),
        50, "ACC-x,ACC-y,ACC-z", "mg,mg,mg",
    ),
    "Polar HR": (
        "Polar_H10_1_HR.txt", "Phone timestamp;HR [bpm];HRV [ms]\n"
        + lines(clock(1), [60 + n % 9 for n in range(N)], [f"40.{n % 9}" for n in range(N)],
                mark=";"),
        1, "HR,RMSSD", "bpm,ms",
    ),
    "LabChart": (
        "a.txt", LABCHART.format("0.002 s")
        + lines([f"{n / 500:.3f}" for n in range(N)], X[:, 0], X[:, 1]),
        500, "ECG,PULSE", "mV,V",
    ),
    "LabChart without times": (
        "a.txt", LABCHART.format("10 ms") + lines(X[:, 0], X[:, 1]), 100, "ECG,PULSE", "mV,V",
    ),
    "named by its file": (
        "MovesenseECG-2023.csv",
        "timestamp,sample\n" + lines([8 * n for n in range(N)], X[:, 0], mark=","),
        125, "ECG", "unknown",
    ),
    "axes named by their file": (
        "wrist_acc_3.csv",
        "timestamp,x,y,z\n" + lines([20 * n for n in range(N)], *X.T[:3], mark=","),
        50, "ACC-x,ACC-y,ACC-z", "unknown,unknown,unknown",
    ),
    "Fitbit of Google Takeout": (
        "heart_rate_2024-01-20.csv",
        "timestamp,beats per minute,data source\n" + lines(
            [f"2024-01-20T{n // 720:02d}:{n // 12 % 60:02d}:{n % 12 * 5:02d}Z" for n in range(N)],
            [60 + n % 9 for n in range(N)], ["Charge 5"] * N, mark=","),
        0.2, "HR", "unknown",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_layout(tmp_path: Path, name: str) -> None:
    file, text, fs, leads, units = FILES[name]
    (tmp_path / file).write_text(text)
    row = scanned(tmp_path)
    assert isinstance(row, Record), row
    assert row.fields["fs"] == pytest.approx(fs, rel=1e-6)
    assert (row.fields["leads"], row.fields["units"], row.fields["samples"]) == (leads, units, N)
    if name not in ("Polar ACC that counts", "Polar HR", "Fitbit of Google Takeout"):
        held = read(tmp_path, file, Settings()).samples
        for n, samples in enumerate(held):
            np.testing.assert_allclose(samples, X[:, n], atol=1e-4)


def test_blocks_of_labchart_are_no_one_recording(tmp_path: Path) -> None:
    block = LABCHART.format("10 ms") + lines(X[:, 0], X[:, 1])
    (tmp_path / "a.txt").write_text(block * 2)
    row = scanned(tmp_path)
    assert isinstance(row, Reject)
    assert row.code == "several-blocks"


def test_a_files_name_is_not_used_where_columns_have_names(tmp_path: Path) -> None:
    text = "time,hr,value\n" + lines([n / 10 for n in range(N)], X[:, 0] + 60, X[:, 1], mark=",")
    (tmp_path / "ecg.csv").write_text(text)
    row = scanned(tmp_path)
    assert isinstance(row, Record)
    assert row.fields["leads"] == "HR,other"
