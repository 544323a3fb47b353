"""Cut the sample archive that ships with the plugin: the start of every DS1 record.

    python benchmarks/biosignals/cut_sample.py ../shared/data/ecg/mitdb_ds1 OUT --minutes 11

Samples are copied as integers, gains and baselines as they are; annotations up to the cut. Records
keep format 516 (FLAC), but for two in format 212. Every file is read again and compared.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import wfdb

PLAIN = ("101", "106")  # kept in format 212, so that the sample is a mixed archive


def pack_212(digital: np.ndarray) -> bytes:
    """Samples of 12 bits, two in three bytes, signals interleaved."""
    flat = digital.reshape(-1).astype(np.int64) & 0xFFF
    first, second = flat[0::2], flat[1::2]
    packed = np.empty((len(first), 3), dtype=np.uint8)
    packed[:, 0] = first & 0xFF
    packed[:, 1] = (first >> 8) | ((second >> 8) << 4)
    packed[:, 2] = second & 0xFF
    return packed.tobytes()


def cut(source: Path, name: str, out: Path, minutes: float) -> None:
    """Write the first minutes of one record, and check them against the original."""
    header = wfdb.rdheader(str(source / name))
    n = min(round(minutes * 60 * header.fs), header.sig_len)
    record = wfdb.rdrecord(str(source / name), sampto=n, physical=False)
    digital = record.d_signal
    fmt = "212" if name in PLAIN else "516"
    lines = [f"{name} {record.n_sig} {record.fs} {n}"]
    for c in range(record.n_sig):
        checksum = int(digital[:, c].astype(np.int64).sum()) & 0xFFFF
        checksum -= 0x10000 if checksum > 0x7FFF else 0
        lines.append(
            f"{name}.dat {fmt} {record.adc_gain[c]!r}({record.baseline[c]})/{record.units[c]}"
            f" {record.adc_res[c]} {record.adc_zero[c]} {digital[0, c]} {checksum} 0"
            f" {record.sig_name[c]}"
        )
    (out / f"{name}.hea").write_text("\n".join(lines) + "\n")
    if name in PLAIN:
        (out / f"{name}.dat").write_bytes(pack_212(digital))
    else:
        wfdb.io._signal.wr_dat_file(f"{name}.dat", "516", digital, 0, write_dir=str(out))
    marks = wfdb.rdann(str(source / name), "atr", sampto=n - 1)
    wfdb.wrann(
        name,
        "atr",
        marks.sample,
        symbol=marks.symbol,
        subtype=marks.subtype,
        chan=marks.chan,
        num=marks.num,
        aux_note=marks.aux_note,
        write_dir=str(out),
    )
    again = wfdb.rdrecord(str(out / name))
    original = wfdb.rdrecord(str(source / name), sampto=n)
    assert np.array_equal(again.p_signal, original.p_signal), name
    copy = wfdb.rdann(str(out / name), "atr")
    assert np.array_equal(copy.sample, marks.sample), name
    assert list(copy.symbol) == list(marks.symbol), name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=11.0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for header in sorted(arguments.source.glob("*.hea")):
        cut(arguments.source, header.stem, arguments.out, arguments.minutes)
    size = sum(file.stat().st_size for file in arguments.out.iterdir())
    print(f"{size / 1e6:.2f} MB in {arguments.out}")


if __name__ == "__main__":
    main()
