"""One archive with everything that goes wrong: each has its message or finding, the run goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import wfdb

from medcl.archive.index import Index, build
from medcl.archive.store import prepare as prepare_all
from medcl_biosignals.plugin import plugin

SAMPLE = Path(__file__).parents[2] / "plugins/medcl_biosignals/sample"
NAME = "Kowalczyk"  # stands in every place where a name could


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real samples of MIT-BIH 101 in files that are broken in one way each."""
    import edfio

    root = tmp_path_factory.mktemp("hostile") / "archive"
    root.mkdir()
    for suffix in (".hea", ".dat", ".atr"):
        shutil.copy(SAMPLE / f"101{suffix}", root / f"good{suffix}")
        shutil.copy(SAMPLE / f"101{suffix}", root / f"lies{suffix}")
    for name, change in (("good", ("101", "good")), ("lies", ("108000", "1080000"))):
        header = root / f"{name}.hea"
        text = header.read_text().replace("101.dat", f"{name}.dat").replace("101 ", f"{name} ", 1)
        header.write_text(text.replace(*change, 1) + f"# {NAME} 81 F\n")
    x = wfdb.rdrecord(str(SAMPLE / "101"), sampto=3600).p_signal[:, 0]
    t = np.arange(3600) / 360

    def table(name: str, times: np.ndarray, values: np.ndarray) -> None:
        pl.DataFrame({"time [s]": times, "II [mV]": values}).write_csv(root / name)

    table("back.csv", t[::-1], x[::-1])
    table("pair.csv", t[:2], x[:2])
    frame = pl.DataFrame({"time [s]": t, "II [mV]": x, "V1 [mV]": [None] * 3600})
    frame.write_csv(root / "void.csv", null_value="NaN")
    frame = pl.DataFrame({"time [s]": t, "II [mV]": x, "V1 [uV]": x * 1000})
    frame.write_csv(root / "uv.csv")
    comma = [f"{a:.6f};{b:.3f}".replace(".", ",") for a, b in zip(t, x, strict=True)]
    (root / "comma.csv").write_text("\n".join(["time [s];II [mV]", *comma]))
    (root / "letter.csv").write_text(f"Dear Mrs {NAME},\nall is well.\n")
    (root / "empty.csv").write_text("")
    signal = edfio.EdfSignal(x, 360, label="ECG II", physical_dimension="mV")
    edfio.Edf([signal], patient=edfio.Patient(name=NAME)).write(root / "cut.edf")
    whole = (root / "cut.edf").read_bytes()
    (root / "cut.edf").write_bytes(whole[: len(whole) // 2])
    lines = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else NAME}">' for n in range(12))
    (root / "bomb.xml").write_text(
        f"<!DOCTYPE AnnotatedECG [{lines}]><AnnotatedECG>&l11;</AnnotatedECG>"
    )
    np.save(root / "pickle.npy", np.array([{NAME: 1}], dtype=object), allow_pickle=True)
    np.savez(root / "speed.npz", II=x, time=t, fs=250.0)
    return root


def test_each_has_its_message_and_the_run_goes_on(archive: Path, tmp_path: Path) -> None:
    build(archive, tmp_path / "idx", plugin)
    index = Index.open(tmp_path / "idx")
    codes = {index.locate(row["id"]): row["code"] for row in index.rejects.to_dicts()}
    assert codes == {
        "lies": "truncated",
        "pair.csv": "too-short",
        "letter.csv": "not-a-signal",
        "empty.csv": "empty-file",
        "bomb.xml": "unsafe-xml",
        "pickle.npy": "pickled-objects",
    }
    findings = {
        index.locate(row["id"]): set(row["findings"])
        - {"patient-is-record-name", "assumed-seconds"}
        for row in index.items.to_dicts()
    }
    assert findings == {
        "good": set(),
        "back.csv": {"reversed-times"},
        "void.csv": {"empty-channel"},
        "uv.csv": {"mixed-units"},
        "comma.csv": set(),
        "cut.edf": {"truncated"},
        "speed.npz": {"fs-mismatch", "no-unit"},
    }
    prepared = prepare_all(index, plugin, {"fs": 100.0, "leads": ("II|MLII",)})
    assert prepared.rejects.is_empty()
    assert prepared.items.height == 7
    ids = {index.locate(item): item for item in prepared.items["id"]}
    one = prepared.arrays(ids["comma.csv"])["x"]
    for name in ("back.csv", "void.csv", "uv.csv", "speed.npz"):
        np.testing.assert_allclose(prepared.arrays(ids[name])["x"], one, atol=2e-3)


@pytest.mark.slow
def test_no_output_names_anybody(archive: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from medcl_cli.main import app

    out = tmp_path / "idx"
    command = ["index", str(archive), "--plugin", "biosignals", "--out", str(out)]
    shown = CliRunner().invoke(app, command).output
    shown += CliRunner().invoke(app, [*command, "--json"]).output
    prepare_all(Index.open(out), plugin, {"fs": 100.0})
    assert NAME not in shown
    for path in out.rglob("*"):
        if path.is_file():  # not even in the private folder, but for the hash of a patient
            assert NAME.encode() not in path.read_bytes() or path.name == "units.jsonl", path.name
    assert json.loads((out / "index.json").read_text())["items"] == 7
