"""Indexing WFDB archives: real records are read, broken ones are one reject each, with a reason."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import wfdb
from wfdb.io import header as wfdb_header

from medcl.plugin import Record, Reject
from medcl_biosignals.leads import canonical, choose, shown
from medcl_biosignals.readers import wfdb_header as ours
from medcl_biosignals.readers.wfdb_header import read_header

Copy = Callable[..., Path]
Scan = Callable[[Path], list[Record | Reject]]


def rejects(rows: list[Record | Reject]) -> dict[str, Reject]:
    found = {row.key: row for row in rows if isinstance(row, Reject)}
    assert len(found) == sum(isinstance(row, Reject) for row in rows), "two rejects for one record"
    return found


def records(rows: list[Record | Reject]) -> dict[str, Record]:
    return {row.key: row for row in rows if isinstance(row, Record)}


def test_the_plugin_is_light_to_import() -> None:
    code = (
        "import sys, medcl_biosignals.plugin\n"
        "heavy = {'torch', 'scipy', 'wfdb', 'pandas', 'sklearn', 'matplotlib', 'numpy'}\n"
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.shared_data
def test_every_real_record_is_indexed(ecg: Path, scan: Scan) -> None:
    rows = scan(ecg)
    assert not rejects(rows)
    found = records(rows)
    assert set(found) == {
        path.relative_to(ecg).with_suffix("").as_posix() for path in ecg.rglob("*.hea")
    }
    for key, record in found.items():
        truth = wfdb.rdheader(str(ecg / key))
        assert record.fields["fs"] == truth.fs
        assert record.fields["samples"] == truth.sig_len
        assert record.fields["channels"] == truth.n_sig
    assert found["other/s0010_re"].files == (
        "other/s0010_re.hea",
        "other/s0010_re.dat",
        "other/s0010_re.xyz",
    )
    assert found["other/04827_lr"].patient == "other/04827"  # _lr and _hr are one recording


@pytest.mark.shared_data
def test_beats_are_counted_by_class(ecg: Path, scan: Scan) -> None:
    total = dict.fromkeys("NSVFQ", 0)
    for record in records(scan(ecg / "mitdb_ds1")).values():
        for name in total:
            total[name] += record.labels[f"beats_{name}"]  # type: ignore[operator]
    # de Chazal 2004, table II, gives 45 844 N, 943 S, 3 788 V, 414 F, 8 Q for DS1 (he leaves
    # the first seconds out); e and j are under N.
    assert total == {"N": 45866, "S": 944, "V": 3788, "F": 415, "Q": 8}


def test_nothing_that_identifies_a_person_is_kept(copy: Copy, scan: Scan) -> None:
    root = copy("101")
    header = root / "101.hea"
    lines = header.read_text().splitlines()
    lines[0] += " 11:22:33 01/02/1934"
    lines[1] = lines[1].replace("MLII", "recorded from Jane Roe at home")
    header.write_text("\n".join([*lines, "# age: 81 sex: F name: Jane Roe"]) + "\n")
    (record,) = records(scan(root)).values()
    seen = repr((record.fields, record.labels, record.findings))
    for secret in ("Jane", "Roe", "1934", "11:22"):
        assert secret not in seen
    assert record.labels["age"] == 81
    assert "sex" not in record.labels, "a name stands behind it"
    assert record.fields["leads"] == "other,V1"


def _no_header(root: Path) -> None:
    (root / "101.hea").unlink()


def _no_signal(root: Path) -> None:
    (root / "101.dat").unlink()


def _cut_212(root: Path) -> None:
    data = (root / "101.dat").read_bytes()
    (root / "101.dat").write_bytes(data[: len(data) // 2])


def _empty_signal(root: Path) -> None:
    (root / "101.dat").write_bytes(b"")


def _empty_header(root: Path) -> None:
    (root / "101.hea").write_text("")


def _binary_header(root: Path) -> None:
    (root / "101.hea").write_bytes((root / "101.dat").read_bytes()[:4096])


def _prose_header(root: Path) -> None:
    (root / "101.hea").write_text("Dear colleague,\nthe recording is on the other drive.\n")


def _ten_gigabytes(root: Path) -> None:
    text = (root / "101.hea").read_text()
    (root / "101.hea").write_text(text.replace("108000", "3333333333", 1))


def _one_sample_too_many(root: Path) -> None:
    text = (root / "101.hea").read_text()
    (root / "101.hea").write_text(text.replace("108000", "108001", 1))


def _no_rate(root: Path) -> None:
    text = (root / "101.hea").read_text()
    (root / "101.hea").write_text(text.replace("101 2 360", "101 2 0", 1))


def _unknown_format(root: Path) -> None:
    text = (root / "101.hea").read_text()
    (root / "101.hea").write_text(text.replace(" 212 ", " 999 "))


def _two_samples(root: Path) -> None:
    text = (root / "101.hea").read_text()
    (root / "101.hea").write_text(text.replace("108000", "2", 1))


def _missing_line(root: Path) -> None:
    (root / "101.hea").write_text("".join((root / "101.hea").read_text().splitlines(True)[:2]))


@pytest.mark.parametrize(
    ("damage", "code", "says"),
    [
        (_no_header, "missing-header", ".hea"),
        (_no_signal, "missing-signal", "the header names"),
        (_cut_212, "truncated", "54000"),
        (_empty_signal, "empty-signal", "the header names"),
        (_empty_header, "empty-header", "empty"),
        (_binary_header, "not-wfdb", ".hea"),
        (_prose_header, "not-wfdb", "record line"),
        (_ten_gigabytes, "truncated", "3333333333"),
        (_one_sample_too_many, "truncated", "108001"),
        (_no_rate, "bad-sampling-rate", "0 Hz"),
        (_unknown_format, "unknown-format", "999"),
        (_two_samples, "too-short", "2 samples"),
        (_missing_line, "bad-header", "2 signals"),
    ],
)
def test_a_broken_record_is_one_reject(
    copy: Copy, scan: Scan, damage: Callable[[Path], None], code: str, says: str
) -> None:
    root = copy("101", "115")
    damage(root)
    rows = scan(root)
    assert list(rejects(rows)) == ["101"]
    assert rejects(rows)["101"].code == code
    assert says in rejects(rows)["101"].reason
    assert list(records(rows)) == ["115"], "the others are not harmed"


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_cut_flac_signal_is_one_reject(copy: Copy, scan: Scan, keep: float) -> None:
    root = copy("101", "115")
    data = (root / "115.dat").read_bytes()
    (root / "115.dat").write_bytes(data[: int(len(data) * keep)])
    rows = scan(root)
    assert list(rejects(rows)) == ["115"]
    assert rejects(rows)["115"].code in ("truncated", "bad-signal")
    assert list(records(rows)) == ["101"]


@pytest.mark.parametrize(("record", "beyond"), [("101", 360), ("115", 360), ("101", 300)])
def test_a_file_longer_than_the_header_says_is_noticed(
    copy: Copy, scan: Scan, record: str, beyond: int
) -> None:
    root = copy(record)
    header = root / f"{record}.hea"
    header.write_text(header.read_text().replace("108000", str(108000 - beyond)))
    found = records(scan(root))[record]
    assert found.fields["samples"] == 108000 - beyond
    assert ("longer-than-header" in found.findings) == (beyond >= 360)  # a second


def test_flac_shorter_than_the_header_says(copy: Copy, scan: Scan) -> None:
    root = copy("115")
    text = (root / "115.hea").read_text()
    (root / "115.hea").write_text(text.replace("108000", "3333333333", 1))
    assert rejects(scan(root))["115"].code == "truncated"


def test_what_is_not_a_recording_is_ignored(copy: Copy, scan: Scan) -> None:
    root = copy("101")
    for name in ("README.md", "RECORDS", "notes.txt", "._101.hea", "LICENSE"):
        (root / name).write_text("not a recording")
    assert list(records(scan(root))) == ["101"]
    assert not rejects(scan(root))


def test_broken_annotations_do_not_cost_the_signal(copy: Copy, scan: Scan) -> None:
    root = copy("101")
    (root / "101.atr").write_bytes(b"\xff\xff\xff")
    (record,) = records(scan(root)).values()
    assert record.findings == ("unreadable-annotations", "patient-is-record-name")
    assert record.fields["annotated"] is False


def test_a_header_without_a_rate_is_noticed(copy: Copy, scan: Scan) -> None:
    root = copy("101")
    lines = (root / "101.hea").read_text().splitlines()
    (root / "101.hea").write_text("\n".join(["101 2", *lines[1:]]) + "\n")
    (record,) = records(scan(root)).values()
    assert record.findings == ("assumed-250-hz", "patient-is-record-name")
    assert record.fields["samples"] == 108000  # from the file's size


def multi_segment(root: Path, master: str, names: list[str], layout: bool = False) -> None:
    """Cut record 101 into segments with a master header (real samples, made-up cuts)."""
    record = wfdb.rdrecord(str(root / "101"), physical=False)
    lengths = []
    for number, name in enumerate(names):
        part = record.d_signal[number * 3600 : (number + 1) * 3600]
        wfdb.wrsamp(
            name,
            fs=360,
            units=record.units,
            sig_name=record.sig_name,
            d_signal=part,
            fmt=["16", "16"],
            adc_gain=record.adc_gain,
            baseline=record.baseline,
            write_dir=str(root),
        )
        lengths.append((name, len(part)))
    if layout:
        stem = names[0].rsplit("_", 1)[0]
        text = (root / f"{names[0]}.hea").read_text().splitlines()
        lines = [line.replace(f"{names[0]}.dat", "~") for line in text[1:]]
        (root / f"{stem}_layout.hea").write_text(
            "\n".join([f"{stem}_layout 2 360 0", *lines]) + "\n"
        )
        lengths.insert(0, (f"{stem}_layout", 0))
    total = sum(length for _, length in lengths)
    first = f"{master}/{len(lengths)} 2 360 {total}"
    (root / f"{master}.hea").write_text(
        "\n".join([first, *(f"{name} {length}" for name, length in lengths)]) + "\n"
    )
    for file in root.glob("101.*"):
        file.unlink()


@pytest.mark.parametrize(
    ("master", "names", "layout"),
    [
        ("rec", ["rec_0001", "rec_0002"], False),
        ("rec", ["rec_0001", "rec_0002"], True),
        ("041s", ["041s01", "041s02"], False),
        ("p000020-2183-04-28", ["3544749_0001", "3544749_0002"], True),  # as MIMIC has them
    ],
)
def test_segments_are_no_items_of_their_own(
    copy: Copy, scan: Scan, master: str, names: list[str], layout: bool
) -> None:
    root = copy("101", "115")
    multi_segment(root, master, names, layout)
    rows = scan(root)
    assert not rejects(rows)
    assert set(records(rows)) == {master, "115"}
    record = records(rows)[master]
    assert record.fields["samples"] == 7200
    assert record.fields["leads"] == "MLII,V1"
    assert {f"{name}.dat" for name in names} <= set(record.files)
    assert wfdb.rdrecord(str(root / master)).p_signal.shape == (7200, 2)


def test_a_missing_segment_is_one_reject(copy: Copy, scan: Scan) -> None:
    root = copy("101")
    multi_segment(root, "rec", ["rec_0001", "rec_0002"])
    (root / "rec_0002.dat").unlink()
    rows = scan(root)
    assert list(rejects(rows)) == ["rec"]
    assert rejects(rows)["rec"].code == "missing-signal"
    assert not records(rows)


def place(root: Path, *keys: str) -> Path:
    """Record 101 again at each of these places; the original goes."""
    text = (root / "101.hea").read_text()
    for key in keys:
        path = root / f"{key}.hea"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("101", path.stem))
        shutil.copy(root / "101.dat", path.with_suffix(".dat"))
    for file in root.glob("101.*"):
        file.unlink()
    return root


@pytest.mark.parametrize(
    ("key", "patient"),
    [
        ("p00/p000020/p000020-2183-04-28-17-47", "p000020"),  # MIMIC-III
        ("p10/p10014354/81739927/81739927", "p10014354"),  # MIMIC-IV waveforms
        ("files/p1000/p10000032/s40689238/40689238", "p10000032"),  # MIMIC-IV-ECG
        ("files/p10000/p10000032/s40689238/40689238", "p10000032"),
        ("sub-01/ses-1/ecg/sub-01_ses-1_ecg", "sub-01"),  # BIDS
        ("patient001/s0010_re", "patient001"),  # PTB
        ("cohort/subject02/s1/night", "subject02"),
    ],
)
def test_patients_are_folders_where_those_are_named_so(
    copy: Copy, scan: Scan, key: str, patient: str
) -> None:
    found = records(scan(place(copy("101"), key)))
    assert {key: (r.patient, r.findings) for key, r in found.items()} == {key: (patient, ())}


def test_without_such_a_folder_no_two_records_are_one_patient(copy: Copy, scan: Scan) -> None:
    keys = ("Abernathy/visit1", "Bloomquist/visit1", "Bloomquist/visit2", "s1/a", "s2/a", "b")
    found = records(scan(place(copy("101"), *keys)))
    assert {key: record.patient for key, record in found.items()} == {key: key for key in keys}
    assert all(record.findings == ("patient-is-record-name",) for record in found.values())


def test_two_rates_of_one_recording_are_one_patient(copy: Copy, scan: Scan) -> None:
    root = place(copy("101"), "records100/00000/00001_lr", "records500/00000/00001_hr")  # PTB-XL
    assert [r.patient for r in records(scan(root)).values()] == ["00000/00001"] * 2


def test_patients_of_a_flat_folder_are_its_records(sample: Path, scan: Scan) -> None:
    for key, record in records(scan(sample)).items():
        assert record.patient == key
        assert record.findings == ("patient-is-record-name",)


def test_records_201_and_202_are_one_man(copy: Copy, scan: Scan) -> None:
    root = copy("201")
    for file in list(root.glob("201.*")):
        text = file.read_bytes()
        if file.suffix == ".hea":
            text = text.replace(b"201", b"202")
        (root / f"202{file.suffix}").write_bytes(text)
    assert {r.patient for r in records(scan(root)).values()} == {"201"}
    (root / "ds2").mkdir()
    for file in list(root.glob("202.*")):
        file.rename(root / "ds2" / file.name)
    assert {r.patient for r in records(scan(root)).values()} == {"201"}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("Meyerhold_Anna.dat 16 200/mV 16 0 0 0 0 II", "missing-signal"),
        ("Nakamura.dat 16 200/mV 16 0 0 0 0 II", "empty-signal"),
        ("Nakamura.flac 516 200/mV 16 0 0 0 0 II", "bad-signal"),
        ("Okonkwo.dat 16 200/mV 16 0 0 0 0 II", "truncated"),
    ],
)
def test_reasons_quote_no_name_from_a_header(
    tmp_path: Path, scan: Scan, line: str, code: str
) -> None:
    (tmp_path / "r.hea").write_text(f"r 1 360 3600\n{line}\n")
    (tmp_path / "Nakamura.dat").write_bytes(b"")
    (tmp_path / "Nakamura.flac").write_bytes(b"no stream")
    (tmp_path / "Okonkwo.dat").write_bytes(b"12")
    reject = rejects(scan(tmp_path))["r"]
    assert reject.code == code
    for name in ("Meyerhold", "Nakamura", "Okonkwo"):
        assert name not in reject.reason


def test_units_and_channel_names_are_known_ones_or_other(copy: Copy, scan: Scan) -> None:
    root = copy("101")
    lines = (root / "101.hea").read_text().splitlines()
    for number, (unit, name) in enumerate((("Nakamura", "Roe"), ("MMHG", "Anna-Roe")), start=1):
        parts = lines[number].split(" ")
        lines[number] = " ".join([*parts[:2], f"200/{unit}", *parts[3:8], name])
    (root / "101.hea").write_text("\n".join(lines) + "\n")
    (record,) = records(scan(root)).values()
    assert record.fields["units"] == "other,mmHg"
    assert record.fields["leads"] == "other,other"


def test_headers_agree_with_wfdb(sample: Path) -> None:
    for path in sample.glob("*.hea"):
        ours, theirs = read_header(path), wfdb.rdheader(str(path.with_suffix("")))
        assert (ours.fs, ours.frames) == (theirs.fs, theirs.sig_len)
        assert [c.name for c in ours.channels] == theirs.sig_name
        assert [c.format for c in ours.channels] == theirs.fmt


def test_lead_names() -> None:
    assert canonical("ECG lead ii") == "II"
    assert canonical("Pleth") == "PLETH"
    assert canonical("avr") == "aVR"
    assert canonical("ART-mean") == "ART-mean"
    assert canonical("Mr Smith in bed 4") == "?"
    assert canonical(None) == "?"


def test_lead_names_that_may_be_shown() -> None:
    names = ("lead ii", "abp", "C3", "ECG1", "Fp2", "Roe", "Anna-Roe", "ART-mean", "Jane Roe", None)
    assert [shown(name) for name in names] == ["II", "ABP", "C3", "ECG1", "Fp2", *["other"] * 5]


def test_leads_are_chosen_by_name_with_fallbacks() -> None:
    def chosen(names: list[str], slots: list[str]) -> list[int | None]:
        return [None if pick is None else pick.channel for pick in choose(names, slots)]

    assert chosen(["V5", "MLII"], ["MLII|II", "V1|V5|*"]) == [1, 0]
    assert chosen(["I", "II"], ["MLII|II", "V1"]) == [1, None]
    assert chosen(["PLETH", "II"], ["*", "II"]) == [0, 1]
    assert chosen(["II"], ["*", "*"]) == [0, None]


def test_header_lines_agree_with_wfdb_however_they_are_mangled(sample: Path) -> None:
    random = Random(0)
    patterns = {
        True: (wfdb_header.rx_record, ours._RECORD),
        False: (wfdb_header.rx_signal, ours._SIGNAL),
    }
    lines = [line for p in sample.glob("*.hea") for line in p.read_text().splitlines()[:3]]
    lines += ["p01/22 4 125/60(5) 12345 10:00:00 01/02/1990", "x 0", "~ 0 200/mV"]
    lines += ["a.dat 16x2:3+24 1.5e-3(-5)/mm/s^2 12 0 -5 22 0 I am, a lead", "a.dat 212"]
    for line in lines:
        for damage in range(100):
            letters = list(line)
            for _ in range(damage % 4):
                letters[random.randrange(len(letters))] = random.choice("0129 /x:+().-~aZ\t")
            mangled = "".join(letters).strip()
            theirs, own = (pattern.match(mangled) for pattern in patterns[".dat" not in line])
            assert (theirs is None) == (own is None), mangled
            if theirs is not None and own is not None:
                expected = {name: theirs[name] for name in own.groupdict()}
                assert own.groupdict() == expected, mangled


@pytest.mark.parametrize("name", ["101", "115"])
def test_indexing_imports_nothing_heavy(copy: Copy, name: str) -> None:
    root = copy(name)
    (root / "a.csv").write_text("time,II\n" + "".join(f"{n / 100},{n % 7}\n" for n in range(500)))
    code = (
        "import sys\nfrom pathlib import Path\nfrom medcl.plugin import FileStat, Record\n"
        "from medcl_biosignals.plugin import plugin\n"
        f"root = Path({str(root)!r})\n"
        "files = [FileStat(p.name, p.stat().st_size, 0) for p in root.iterdir()]\n"
        "rows = [r for u in plugin.units(files) for r in plugin.scan(root, u)]\n"
        "assert len(rows) == 2 and all(isinstance(r, Record) for r in rows), rows\n"
        "heavy = {'torch', 'scipy', 'wfdb', 'pandas', 'sklearn', 'matplotlib'}\n"
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
