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
ACTIGRAPH = (
    "------------ Data File Created By ActiGraph GT3X+ ActiLife v6.11.9 date format M/d/yyyy "
    "at 30 Hz  Filter Normal -----------\nSerial Number: X1\nStart Time 12:00:00\n"
    "Start Date 1/20/2021\nEpoch Period (hh:mm:ss) {}\nDownload Time 09:50:23\n"
    "Download Date 1/28/2021\nCurrent Memory Address: 0\n"
    "Current Battery Voltage: 4.07     Mode = 12\n" + "-" * 50 + "\n"
)
GENEACTIV = (
    "Device Type,GENEActiv\nDevice Model,1.1\nCalibration Date,2012-10-15 12:00:00:000\n"
    "Measurement Frequency,50.0 Hz\nStart Time,2012-10-22 10:00:00:000\n"
    "Date of Birth,1900-1-1\n" + ",\n" * 94
)
OPENBCI = (
    "%OpenBCI Raw EXG Data\n%Number of channels = 2\n%Sample Rate = 250 Hz\n"
    "%Board = OpenBCI_GUI$BoardCytonSerial\n"
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
    "ActiGraph": ("a.csv", ACTIGRAPH.format("00:00:00") + lines(*X.T[:3], mark=","),
                  30, "ACC-x,ACC-y,ACC-z", "g,g,g"),
    "ActiGraph with names": (
        "a.csv",
        ACTIGRAPH.format("00:00:00") + "Accelerometer X;Accelerometer Y;Accelerometer Z\n"
        + lines(*X.T[:3], mark=";").replace(".", ","),
        30, "ACC-x,ACC-y,ACC-z", "g,g,g",
    ),
    "ActiGraph, counts of an epoch": (
        "a.csv", ACTIGRAPH.format("00:01:00") + lines(*X.T[:3], mark=","),
        1 / 60, "other,other,other", "unknown,unknown,unknown",
    ),
    "GENEActiv": (
        "a.csv",
        GENEACTIV + lines([f"2021-01-20 12:00:{n / 50:06.3f}".replace(".", ":") for n in range(N)],
                          *X.T[:3], [9] * N, [0] * N, X.T[3], mark=","),
        50, "ACC-x,ACC-y,ACC-z,other,TEMP", "g,g,g,unknown,degC",
    ),
    "OpenBCI": (
        "a.txt",
        OPENBCI + "Sample Index, EXG Channel 0, EXG Channel 1, Accel Channel 0, Accel Channel 1, "
        "Other, Timestamp, Timestamp (Formatted)\n"
        + lines([n % 256 for n in range(N)], *X.T, [0] * N, [1.6e9 + n // 9 for n in range(N)],
                clock(250), mark=", "),
        250, "other,other,ACC-x,ACC-y", "uV,uV,g,g",
    ),
    "OpenBCI before version 5": (
        "a.txt",
        OPENBCI + lines([n % 256 for n in range(N)], *X.T, X[:, 0], ["12:00:00.000"] * N,
                        mark=", "),
        250, "other,other,ACC-x,ACC-y,ACC-z", "uV,uV,g,g,g",
    ),
    "Hexoskin": (
        "ECG_I.csv", "time [s/256],ECG_I [mV](/api/datatype/4113/)\n"
        + lines(range(N), X[:, 0], mark=","),
        256, "I", "mV",
    ),
    "Zephyr": (
        "a_Accel.csv", "Time,Vertical,Lateral,Sagittal\n" + lines(clock(100), *X.T[:3], mark=","),
        100, "ACC-x,ACC-y,ACC-z", "unknown,unknown,unknown",
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
    if name not in ("Polar ACC that counts", "Polar HR", "Fitbit of Google Takeout", "GENEActiv"):
        held = read(tmp_path, file, Settings()).samples
        for n, samples in enumerate(held):  # some repeat the first of the four
            np.testing.assert_allclose(samples, X[:, n % 4], atol=1e-4)


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
