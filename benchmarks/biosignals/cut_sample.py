"""Cut the sample archive that ships with the plugin: five minutes of every DS1 record.

    python benchmarks/biosignals/cut_sample.py ../shared/data/ecg/mitdb_ds1 OUT

The public copy is digitised anew at 12 bits. The database's own grid (11 bits, 200 steps a
millivolt, 1024 at zero) is restored here: no sample of the copy lies further than `FURTHEST` of a
step from it, so that rounding is unambiguous, and the checksums of `PUBLISHED`, over all 650,000
samples of a signal, are those of PhysioNet's headers. Annotations are copied, counted from the cut
on. One record is in format 212, the others in format 516 (FLAC). Every file is read again and
compared.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import wfdb

PLAIN = ("101",)  # in format 212, so that the sample is a mixed archive
GAIN, ZERO, BITS = 200, 1024, 11  # MIT-BIH as it was digitised
FURTHEST = 0.25  # of a step
PUBLISHED = {"101": (29832, None), "208": (8074, 20649)}
"""Checksums in PhysioNet's headers, of the signals for which they are known here."""


def restored(physical: np.ndarray, name: str) -> np.ndarray:
    """Millivolts (samples, signals) of a whole record → the database's own integers."""
    steps = physical * GAIN + ZERO
    digital = np.rint(steps).astype(np.int64)
    assert np.abs(steps - digital).max() <= FURTHEST, name
    for found, known in zip(checksums(digital), PUBLISHED.get(name, ()), strict=False):
        assert known in (None, found), name
    return digital


def checksums(digital: np.ndarray) -> list[int]:
    """The sum of each signal's samples as 16 bits with a sign, as headers give it."""
    return [int(n) for n in digital.sum(axis=0).astype(np.int16)]


def pack_212(digital: np.ndarray) -> bytes:
    """Samples of 12 bits, two in three bytes, signals interleaved."""
    flat = digital.reshape(-1).astype(np.int64) & 0xFFF
    first, second = flat[0::2], flat[1::2]
    packed = np.empty((len(first), 3), dtype=np.uint8)
    packed[:, 0] = first & 0xFF
    packed[:, 1] = (first >> 8) | ((second >> 8) << 4)
    packed[:, 2] = second & 0xFF
    return packed.tobytes()


def cut(source: Path, name: str, out: Path, start: float, minutes: float) -> None:
    """Write some minutes of one record, and check them against the original."""
    record = wfdb.rdrecord(str(source / name))
    first, n = (round(60 * m * record.fs) for m in (start, minutes))
    digital = restored(record.p_signal, name)[first : first + n]
    fmt = "212" if name in PLAIN else "516"
    lines = [f"{name} {record.n_sig} {record.fs} {n}"]
    lines += [
        f"{name}.dat {fmt} {GAIN}/mV {BITS} {ZERO} {digital[0, c]} {checksum} 0 {lead}"
        for c, (checksum, lead) in enumerate(zip(checksums(digital), record.sig_name, strict=True))
    ]
    (out / f"{name}.hea").write_text("\n".join(lines) + "\n")
    if name in PLAIN:
        (out / f"{name}.dat").write_bytes(pack_212(digital))
    else:
        wfdb.io._signal.wr_dat_file(
            f"{name}.dat", "516", digital.astype(np.int16), 0, write_dir=str(out)
        )
    limits = {"sampfrom": first, "sampto": first + n - 1, "shift_samps": True}
    marks = wfdb.rdann(str(source / name), "atr", **limits)
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
    again = wfdb.rdrecord(str(out / name), physical=False)
    assert np.array_equal(again.d_signal, digital), name
    copy = wfdb.rdann(str(out / name), "atr")
    assert np.array_equal(copy.sample, marks.sample), name
    assert list(copy.symbol) == list(marks.symbol), name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=float, default=6.0, help="minutes from the record's begin")
    parser.add_argument("--minutes", type=float, default=5.0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for header in sorted(arguments.source.glob("*.hea")):
        cut(arguments.source, header.stem, arguments.out, arguments.start, arguments.minutes)
    size = sum(file.stat().st_size for file in arguments.out.iterdir())
    print(f"{size / 1e6:.2f} MB in {arguments.out}")


if __name__ == "__main__":
    main()
