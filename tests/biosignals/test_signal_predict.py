"""medcl predict on real recordings: same windows as the run's, scores, aggregates, streams."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy import signal as sp
from typer.testing import CliRunner

from medcl import recipe as recipes
from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.engine.pretrain import pretrain
from medcl.errors import MedclError, UsageError
from medcl.finetune.finetune import finetune, opened
from medcl.finetune.opened import Study
from medcl.ingestion import indexed
from medcl.predict import streaming as following
from medcl.predict.batch import predict
from medcl.predict.streaming import _csv, follow
from medcl.registry import resolve
from medcl.run import Run, load_samples
from medcl_biosignals.filters import band_pass
from medcl_biosignals.leads import Pick, canonical, choose
from medcl_biosignals.plugin import plugin
from medcl_biosignals.prepare import read_signal
from medcl_biosignals.streaming import stream
from medcl_cli.main import app

TINY = [
    "encoder={name: resnet1d, channels: 2, widths: [8, 16], blocks: 1, stride: 4}",
    "trainer={steps: 12, batch_size: 32}",
    "prepare.fs=100", "views.fs=100", "dataset.seconds=4", "dataset.stride=4", "dataset.quality=0",
    "probe.dataset={seconds: 3.0, scale: window}", "monitor={every: 100, samples: 32}",
]  # fmt: skip
TRAINED = ("101", "106", "114", "118", "207", "208")


@pytest.fixture(scope="module")
def run(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("predict")
    (root / "archive").mkdir()
    for name in TRAINED:
        for file in sample.glob(f"{name}.*"):
            shutil.copy(file, root / "archive" / file.name)
    (root / "public.key").write_text("predictions in tests: hides nothing")
    build(root / "archive", root / "index", plugin, key_file=root / "public.key")
    recipe = recipes.load("simclr-ecg", TINY)
    return pretrain(recipe, root / "index", root / "run")


@pytest.fixture(scope="module")
def key(run: Run) -> Path:
    return run.path.parent / "public.key"


@pytest.mark.slow
def test_the_runs_own_recordings_give_the_runs_own_embeddings(
    run: Run, key: Path, tmp_path: Path
) -> None:
    out = tmp_path / "preds.parquet"
    made = predict(run, [run.path.parent / "archive"], out, key_file=key)
    table = pl.read_parquet(out)
    samples = load_samples(run.recipe, run.data)
    assert made.windows == len(table) == len(samples)
    with torch.inference_mode():
        x = samples.read(np.arange(len(samples)))["x"]
        want = run.encoder()(torch.from_numpy(x)).numpy()
    at = {(item, float(i.split(":")[1]) / 100): n
          for n, (i, item) in enumerate(zip(samples.ids, samples.items, strict=True))}  # fmt: skip
    order = [at[item, start] for item, start in table.select("item", "start").iter_rows()]
    np.testing.assert_allclose(table["embedding"].to_numpy(), want[order], atol=1e-5)
    assert set(table["patient"]) == set(Index.open(run.data).items["patient"])
    assert table["anomaly"].is_between(0, 1).all()
    assert table["record" if "record" in table.columns else "item"].n_unique() == len(TRAINED)

    records = pl.read_parquet(tmp_path / "preds.records.parquet")
    patients = pl.read_parquet(tmp_path / "preds.patients.parquet")
    assert records["windows"].sum() == patients["windows"].sum() == len(table)
    first = records.row(0, named=True)
    mine = table.filter(pl.col("item") == first["item"])
    mean = mine["embedding"].to_numpy().mean(axis=0)
    np.testing.assert_allclose(first["embedding"], mean, atol=1e-5)
    assert first["anomaly"] == pytest.approx(mine["anomaly"].mean(), abs=1e-6)


@pytest.mark.slow
def test_people_are_recognised_in_a_copy_of_the_archive(
    run: Run, key: Path, tmp_path: Path
) -> None:
    """A record without a subject is its own patient, by its name from below the folder given."""
    copy, out = tmp_path / "elsewhere", tmp_path / "preds.parquet"
    shutil.copytree(run.path.parent / "archive", copy)
    predict(run, [copy], out, key_file=key, embeddings=False)
    found = set(pl.read_parquet(out)["patient"])
    assert found == set(Index.open(run.data).items["patient"])
    assert len(found) == len(TRAINED)


@pytest.mark.slow
def test_single_files_stems_and_paths(run: Run, key: Path, sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "preds.parquet"
    one = predict(run, [sample / "223.hea", sample / "230"], out, key_file=key, embeddings=False)
    table = pl.read_parquet(out)
    assert one.records == 2
    assert "embedding" not in table.columns
    assert "record" not in table.columns
    predict(run, [sample / "223.hea"], out, key_file=key, paths=True)
    assert set(pl.read_parquet(out)["record"]) == {"223"}
    assert "223" not in json.dumps(pl.read_parquet(out).drop("record").columns)
    with pytest.raises(UsageError, match="does not exist"):
        predict(run, [sample / "no such"], out)
    shutil.copy(sample / "223.hea", tmp_path / "223.hea")
    shutil.copy(sample / "223.dat", tmp_path / "223.dat")
    x, _, fs = recording(sample)
    pl.DataFrame({"time": np.arange(x.shape[1]) / fs, "MLII": x[1]}).write_csv(tmp_path / "b.csv")
    shutil.copy(tmp_path / "b.csv", tmp_path / "b.tsv")  # of the same stem, a recording by itself
    for given, records in (("b.csv", ["b.csv"]), ("b", ["b.csv", "b.tsv"]), ("223.dat", ["223"])):
        predict(run, [tmp_path / given], out, key_file=key, paths=True)
        assert sorted(set(pl.read_parquet(out)["record"])) == records


@pytest.mark.slow
def test_a_task_gives_probabilities_of_the_probes_classifier(
    run: Run, key: Path, sample: Path, tmp_path: Path
) -> None:
    out = tmp_path / "preds.parquet"
    predict(run, [sample / "223"], out, key_file=key, task="aami-nsv")
    table = pl.read_parquet(out)
    p = table.select("p.N", "p.S", "p.V").to_numpy()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    kept = run.path / "probe" / "head.aami-nsv.safetensors"
    before = kept.read_bytes()
    predict(run, [sample / "223"], out, key_file=key, task="aami-nsv")  # nothing is fitted again
    assert kept.read_bytes() == before
    np.testing.assert_allclose(pl.read_parquet(out)["p.V"], table["p.V"])
    kept.write_bytes(b"damaged")
    predict(run, [sample / "223"], out, key_file=key, task="aami-nsv")
    np.testing.assert_allclose(pl.read_parquet(out)["p.V"], table["p.V"], atol=1e-5)


def test_noise_is_stranger_than_heart_beats(run: Run) -> None:
    from medcl.predict.reference_set import reference

    encoder = run.encoder()
    known = reference(run, encoder, None)
    samples = load_samples(run.recipe, run.data)
    x = torch.from_numpy(samples.read(np.arange(0, len(samples), 7))["x"])
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        usual, odd = (known.anomaly_scorer.score(encoder(v).numpy()) for v in (x, noise))
    assert np.median(odd.knn) > np.median(usual.knn)
    assert np.median(odd.mahalanobis) > 1.3 * np.median(usual.mahalanobis)


def test_what_cannot_be_used_is_told_and_costs_nothing_else(
    run: Run, key: Path, sample: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for file in sample.glob("223.*"):
        shutil.copy(file, folder / file.name)
    (folder / "broken.hea").write_text("broken 2 360 1000\nbroken.dat 212 200\n")
    header = (folder / "223.hea").read_text()
    (folder / "223.hea").write_text(header.replace("108000", "90000"))
    made = predict(run, [folder], tmp_path / "p.parquet", key_file=key)
    assert made.records == 1
    assert sum(made.rejects.values()) == 1
    assert made.findings == {"longer-than-header": 1, "patient-is-record-name": 1}
    table = pl.read_parquet(tmp_path / "p.records.parquet")
    assert set(table["findings"][0]) == set(made.findings)
    assert "broken" not in json.dumps(dict(made.rejects))
    named = predict(run, [folder], tmp_path / "p.parquet", key_file=key, paths=True)
    assert list(named.rejects) == [f"broken: {reason}" for reason in made.rejects]
    for file in folder.glob("223.*"):
        file.unlink()
    with pytest.raises(MedclError, match="None of the recordings can be used"):
        predict(run, [folder], tmp_path / "q.parquet", key_file=key)
    assert not (tmp_path / "q.parquet").exists()


def recording(sample: Path) -> tuple[np.ndarray, list[str], float]:
    x, names, fs = read_signal(sample / "114.hea")  # its leads are the other way round
    return x[:, : round(60 * fs)], names, fs


def settings(run: Run) -> dict[str, dict]:
    return {"prepare": run.recipe.prepare, "dataset": run.recipe.dataset}


def causal(x: np.ndarray, names: list[str], fs: float, run: Run) -> np.ndarray:
    """The same causal pipeline, the whole signal at once: windows (K, C, T)."""
    prepare = run.recipe.prepare
    picks = choose([canonical(name) for name in names], prepare["leads"])
    picked = [pick.channel for pick in picks if pick is not None]
    y = sp.sosfilt(band_pass(fs, prepare["band"]), (x - x[:, :1])[picked], axis=1)
    y = sp.resample_poly(y, 5, 18, axis=1)  # 360 → 100 Hz
    length = round(run.recipe.dataset["seconds"] * 100)
    whole = y[:, : y.shape[1] // length * length].reshape(2, -1, length).transpose(1, 0, 2)
    whole = whole - whole.mean(axis=-1, keepdims=True)
    return whole / whole.std(axis=-1, keepdims=True)


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 97, 4096, 10**6])
def test_a_stream_equals_the_whole_signal_however_it_is_cut(
    run: Run, sample: Path, cut: int
) -> None:
    x, names, fs = recording(sample)
    x = x[:, : round(13 * fs)] if cut == 1 else x
    made = stream(names, fs, **settings(run))
    parts = [made.push(x[:, i : i + cut]) for i in range(0, x.shape[1], cut)]
    starts, windows = (np.concatenate(part) for part in zip(*parts, strict=True))
    want = causal(x.astype(np.float64), names, fs, run)[: len(windows)]
    assert len(windows) >= x.shape[1] / fs // 4 - 1
    np.testing.assert_allclose(starts, 4.0 * np.arange(len(windows)))
    np.testing.assert_allclose(windows, want, atol=1e-4)


@pytest.mark.parametrize("gap", [False, True], ids=["whole", "with a gap"])
def test_a_stream_of_a_causal_recipe_is_what_predict_makes_of_the_file(
    run: Run, sample: Path, tmp_path: Path, gap: bool
) -> None:
    """Streaming output equals batch output: windows within 1e-4, embeddings within 1e-3."""
    x, names, fs = recording(sample)
    if gap:
        x = x.copy()
        x[:, 5000:5400] = np.nan
    archive = tmp_path / "archive"
    archive.mkdir()
    pl.DataFrame({"time": np.arange(x.shape[1]) / fs, **dict(zip(names, x, strict=True))}).fill_nan(
        None
    ).write_csv(archive / "a.csv")
    build(archive, tmp_path / "index", plugin)
    causal = {"prepare.phase": "causal", "prepare.dtype": "float32"}
    recipe = recipes.load("simclr-ecg", [*TINY, *(f"{k}={v}" for k, v in causal.items())])
    samples = load_samples(recipe, tmp_path / "index", workers=1)
    starts = [float(i.split(":")[1]) / 100 for i in samples.ids]
    files = samples.read(np.arange(len(samples)))["x"]
    made = stream(names, fs, prepare=recipe.prepare, dataset=recipe.dataset)
    parts = [made.push(x[:, i : i + 700]) for i in range(0, x.shape[1], 700)]
    at, windows = (np.concatenate(part) for part in zip(*parts, strict=True))
    both = [(starts.index(t), n) for n, t in enumerate(at.tolist()) if t in starts]
    assert len(windows) >= 13 if not gap else len(windows) < 14
    assert len(both) == len(windows) if not gap else len(both) >= 3  # after it files begin anew
    mine, theirs = files[[f for f, _ in both]], windows[[n for _, n in both]]
    np.testing.assert_allclose(theirs, mine, atol=1e-4)
    with torch.inference_mode():
        one, other = (run.encoder()(torch.from_numpy(w)).numpy() for w in (mine, theirs))
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_a_stream_keeps_no_more_than_a_window(run: Run, sample: Path) -> None:
    x, names, fs = recording(sample)
    made = stream(names, fs, **settings(run))
    held = []
    for _ in range(20):
        made.push(x[:, :3600])
        held.append(made.x.size + made.lost.size + made.resampler.held.size)
    assert max(held) <= 2 * (400 + 360 + 100)
    assert max(held[10:]) <= max(held[:10])


def test_gaps_in_a_stream(run: Run, sample: Path) -> None:
    x, names, fs = recording(sample)
    x = x.copy()
    x[:, 3000:3400] = np.nan  # 8.3 to 9.4 s: the third window
    whole = stream(names, fs, **settings(run)).push(x)
    assert 8.0 not in whole[0]
    assert {0.0, 4.0, 12.0} <= set(whole[0])
    assert np.isfinite(whole[1]).all()
    for cut in (11, 500):
        made = stream(names, fs, **settings(run))
        parts = [made.push(x[:, i : i + cut]) for i in range(0, x.shape[1], cut)]
        np.testing.assert_allclose(np.concatenate([p[1] for p in parts]), whole[1], atol=1e-5)
    x[0] = np.nan  # a channel that is never there is zero, the other is as before
    one = stream(names, fs, **settings(run)).push(x)
    gone = choose([canonical(n) for n in names], run.recipe.prepare["leads"]).index(Pick(0))
    assert (one[1][:, gone] == 0).all()
    np.testing.assert_allclose(one[1][:, 1 - gone], whole[1][:, 1 - gone], atol=1e-5)


def written(x: np.ndarray, names: list[str], path: Path, separator: str = ",") -> Path:
    decimal = "," if separator == ";" else "."
    rows = [separator.join(["time", *names])]
    for n, values in enumerate(x.T):
        cells = [f"{n / 360:.4f}", *(f"{v:.6f}" for v in values)]
        rows.append(separator.join(cells).replace(".", decimal))
    path.write_text("\n".join(rows) + "\n")
    return path


def test_followed_files_csv_and_raw(run: Run, sample: Path, tmp_path: Path) -> None:
    x, names, fs = recording(sample)
    got = {}
    for kind, separator in (("csv", ","), ("comma decimal", ";")):
        source, out = written(x, names, tmp_path / f"{kind}.csv", separator), tmp_path / kind
        assert follow(run, source, out, fs=fs, wait=0.0) > 10
        got[kind] = [json.loads(line) for line in out.read_text().splitlines()]
    x.T.astype("<f4").tofile(tmp_path / "raw.f32")
    follow(run, tmp_path / "raw.f32", tmp_path / "raw", fs=fs, columns=names, format="f32", wait=0)
    got["raw"] = [json.loads(line) for line in (tmp_path / "raw").read_text().splitlines()]
    windows = causal(x.astype(np.float64), names, fs, run)
    with torch.inference_mode():
        want = run.encoder()(torch.from_numpy(windows.astype(np.float32))).numpy()
    for lines in got.values():
        assert {"start", "knn", "mahalanobis", "anomaly", "embedding"} <= set(lines[0])
        z = np.array([line["embedding"] for line in lines])
        np.testing.assert_allclose(z, want[: len(z)], atol=2e-3)


@pytest.mark.slow
def test_standard_input_through_the_command_line(run: Run, sample: Path, tmp_path: Path) -> None:
    x, names, _ = recording(sample)
    source = written(x, names, tmp_path / "x.csv")
    with source.open("rb") as handle:
        done = subprocess.run(
            [sys.executable, "-m", "medcl_cli.main", "predict", str(run.path), "--follow", "-",
             "--fs", "360", "--no-embeddings"],
            stdin=handle, capture_output=True, text=True, check=True,
        )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["start"] for line in lines] == [4.0 * n for n in range(len(lines))]
    assert len(lines) >= 14


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["-s", "dataset.stride=2"], "--set"),
        (["--key-file", "k"], "--key-file"),
        (["--paths", "--batch-size", "32"], "--paths, --batch-size"),
        (["--workers", "2"], "--workers"),
    ],
)
def test_a_stream_refuses_what_it_would_not_heed(
    run: Run, tmp_path: Path, options: list[str], named: str
) -> None:
    asked = ["predict", str(run.path), "--follow", str(tmp_path / "x.csv"), "--fs", "360"]
    done = CliRunner().invoke(app, [*asked, *options])
    assert isinstance(done.exception, UsageError)
    assert str(done.exception).startswith(f"{named}: for recordings only")
    done = CliRunner().invoke(app, [*asked, "--device", "cpu"])
    assert "cannot be followed" in str(done.exception), "the file is not there"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--columns", "PPG"], "--columns"),
        (["--format", "csv"], "--format"),
        (["--wait", "10", "--columns", "PPG"], "--columns, --wait"),
    ],
)
def test_recordings_refuse_what_is_for_streams(
    run: Run, sample: Path, tmp_path: Path, options: list[str], named: str
) -> None:
    asked = [
        "predict",
        str(run.path),
        str(sample / "223.hea"),
        "--out",
        str(tmp_path / "p.parquet"),
    ]
    done = CliRunner().invoke(app, [*asked, *options])
    assert isinstance(done.exception, UsageError)
    assert str(done.exception).startswith(f"{named}: for a stream only")


@pytest.mark.slow
def test_recordings_that_do_not_say_their_rate_or_channel(
    run: Run, key: Path, sample: Path, tmp_path: Path
) -> None:
    x, _, _ = recording(sample)
    (tmp_path / "bare.csv").write_text("\n".join(f"{value:.4f}" for value in x[0]) + "\n")
    asked = ["predict", str(run.path), str(tmp_path / "bare.csv"), "--key-file", str(key)]
    windows = {}
    for name, options in {
        "": [],
        "slow": ["--fs", "360"],
        "fast": ["--fs", "720"],
        "set": ["-s", "reader.fs=720", "-s", "dataset.stride=2", "-s", "reader.columns.1=MLII"],
    }.items():
        out = tmp_path / f"p{name}.parquet"
        done = CliRunner().invoke(app, [*asked, "--out", str(out), *options])
        if not name:
            assert "reader.fs" in str(done.exception)
            continue
        assert done.exit_code == 0, done.exception
        windows[name] = len(pl.read_parquet(out))
    assert windows == {"slow": 15, "fast": 7, "set": 14}
    for wrong, said in (("reader.fz=1", "Unknown key 'reader.fz'"), ("reader=1", "a section")):
        done = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "w.parquet"), "-s", wrong])
        assert said in str(done.exception)
    with pytest.raises(UsageError, match="is an index"):
        predict(run, [run.data], tmp_path / "i.parquet", settings=["reader.fs=1"])


def test_what_is_said_of_new_files_counts_before_what_the_runs_were() -> None:
    from medcl.ingestion import _over

    own = {"fs": 32, "columns": {"hr": "PPG"}, "files": {"*.csv": {"fs": 64}}}
    assert _over(own, None) == own
    assert _over(own, {"fs": 100}) == {"fs": 100, "columns": {"hr": "PPG"}}
    assert _over(None, {"fs": 100}) == {"fs": 100}


def test_a_streams_channels_are_told_and_filtered_as_those_of_files() -> None:
    prepare = {"leads": ("*", "*", "*"), "fs": 64.0, "band": "kind", "notch": 10.0}
    dataset = {"kind": "window", "scale": "window", "seconds": 4.0, "stride": 4.0}
    x = np.random.default_rng(0).normal(size=(3, 64 * 12)).cumsum(axis=1)

    def windows(names: list[str], x: np.ndarray, **reader: object) -> np.ndarray:
        return stream(names, 64.0, prepare=prepare, dataset=dataset, reader=reader).push(x)[1]

    def filtered(line: np.ndarray, *band: float) -> np.ndarray:
        for mains in (10.0, 20.0):
            line = sp.lfilter(*sp.iirnotch(mains, 30.0, fs=64.0), line)
        low, high = band
        kind, edge = ("lowpass", high) if low == 0 else ("bandpass", band)
        return sp.sosfilt(sp.butter(3, edge, kind, fs=64.0, output="sos"), line)

    bands = ((0.5, 8.0), (0.0, 20.0), (0.05, 1.0))
    want = np.stack([filtered(line - line[0], *b) for line, b in zip(x, bands, strict=True)])
    want = want.reshape(3, 3, 256).transpose(1, 0, 2)
    want = want - want.mean(axis=-1, keepdims=True)
    want = want / want.std(axis=-1, keepdims=True)
    mixed = windows(["PLETH", "ACC-x [g]", "RESP"], x)
    np.testing.assert_allclose(mixed, want, atol=1e-4)

    beside = np.concatenate([np.arange(x.shape[1])[None] / 64, np.ones_like(x[:1]), x])
    times = windows(["Time [s]", "sample", "PLETH [NU]", "ACC-x [g]", "RESP"], beside)
    np.testing.assert_array_equal(times, mixed)
    camera = windows(["R", "G", "B"], x)
    np.testing.assert_array_equal(camera, windows(["PPG-red", "PPG-green", "PPG-blue"], x))
    own = {"PPG": {"names": {"PPG-green": ["diode one"]}}}
    told = windows(["diode one", "wrist", "RESP"], x, vocabulary=own)
    np.testing.assert_array_equal(told[:, 0], mixed[:, 0])
    columns = {"hr": "PLETH", "y": "ACC-x"}
    mapped = windows(["hr", "RESP", "y"], x[[0, 2, 1]], columns=columns)
    np.testing.assert_array_equal(mapped[:, :2], mixed[:, :2])
    assert not mapped[:, 2].any(), "columns that are not named are not read"
    other = windows(["PLETH", "ACC-x", "RESP"], x, columns=columns)
    np.testing.assert_array_equal(other, mixed)  # files of another form were meant
    with pytest.raises(UsageError, match="NAME=CHANNEL"):
        windows(["time", "label", "fold"], x)


def test_columns_of_a_stream_can_be_given_other_names(
    run: Run, sample: Path, tmp_path: Path
) -> None:
    x, names, fs = recording(sample)
    at = [names.index("MLII"), names.index("V5")]
    follow(run, written(x, names, tmp_path / "x.csv"), tmp_path / "known", fs=fs, wait=0)
    named = written(x[at], ["hr", "a=b"], tmp_path / "y.csv")
    asked = ["predict", str(run.path), "--follow", str(named), "--fs", "360", "--wait", "0"]
    columns = ["--columns", "hr=MLII, a=b"]  # a name that is there counts as it is
    done = CliRunner().invoke(app, [*asked, *columns, "--out", str(tmp_path / "told")])
    assert done.exit_code == 0, done.exception
    told, known = ((tmp_path / n).read_text().splitlines() for n in ("told", "known"))
    assert len(told) == len(known) > 10
    done = CliRunner().invoke(app, [*asked, "--columns", "no=MLII"])
    assert "the header has no 'no'" in str(done.exception)


def test_lines_of_any_length_and_columns_that_are_not_taken(tmp_path: Path) -> None:
    def read(text: str, size: int, columns: list[str] | None = None) -> np.ndarray:
        blocks = (text.encode()[i : i + size] for i in range(0, len(text), size))
        return np.concatenate(list(_csv(blocks, columns)[1]), axis=1)

    lines = "PPG,ACC-x,ACC-y\n1,2,3\n\n4,5\n6,7,8,9\n1,2,3\n"
    nan = np.nan
    want = np.array([[1, nan, 4, 6, 1], [2, nan, 5, 7, 2], [3, nan, nan, 8, 3]], np.float32)
    for size in (5, 7, 10**6):
        np.testing.assert_array_equal(read(lines, size), want)
        np.testing.assert_array_equal(read(lines, size, ["PPG"]), want[:1])
    with pytest.raises(UsageError, match="names 1 columns and its lines hold 2"):
        read("PPG\n0,5\n0,7\n", 10**6)


def test_what_is_not_known_is_null_in_a_stream(
    run: Run, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(batch: dict[str, np.ndarray], patients: object) -> tuple[dict, np.ndarray]:
        z = np.full((len(batch["x"]), 2), np.nan, np.float32)
        z[:, 0] = 0.5
        return {"p.N": z[:, 1], "knn": np.full(len(z), np.inf), "anomaly": z[:, 0]}, z

    monkeypatch.setattr(following, "predictor_of", lambda *given, **named: answers)
    x, names, fs = recording(sample)
    follow(run, written(x, names, tmp_path / "x.csv"), tmp_path / "lines", fs=fs, wait=0.0)
    text = (tmp_path / "lines").read_text()
    assert "NaN" not in text
    assert json.loads(text.splitlines()[0]) == {
        "start": 0.0, "p.N": None, "knn": None, "anomaly": 0.5, "embedding": [0.5, None],
    }  # fmt: skip


def test_a_stream_that_does_not_say_what_it_is(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "x.csv"
    source.write_text("1,2\n3,4\n")
    with pytest.raises(UsageError, match="--fs"):
        follow(run, source)
    with pytest.raises(UsageError, match="--columns"):
        follow(run, source, fs=100, wait=0)
    with pytest.raises(UsageError, match="lines hold 2"):
        follow(run, source, fs=100, columns=["MLII"], wait=0)
    with pytest.raises(UsageError, match="cannot be followed"):
        follow(run, tmp_path / "none", fs=100)
    source.write_text("MLII,V1\n" + "1,x\n" * 1000)  # no numbers in one channel
    assert follow(run, source, tmp_path / "out", fs=100, wait=0) > 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert follow(run, Path("-"), tmp_path / "none", fs=100, columns=["MLII"]) == 0


@pytest.fixture(scope="module")
def study(run: Run, key: Path) -> Study:
    """Windows of four seconds into two invented groups of people, in two folds."""
    folder = run.path.parent
    rows = [f"{name},{'high' if int(name) > 150 else 'low'}" for name in TRAINED]
    (folder / "groups.csv").write_text("\n".join(["key,group", *rows]) + "\n")
    asked = ["finetune={epochs: 1, folds: 2, bootstraps: 100, validation: 0.3, label: group}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDCL_KEY_FILE", str(key))
        source = opened(run.path, None, asked)
        finetune(source, folder / "study", labels=folder / "groups.csv")
    return Study.open(folder / "study")


def told_by(study: Study, windows: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean probability of the second class over both folds, and their mean threshold."""
    facts = [json.loads((fold / "fold.json").read_text()) for fold in study.folds]
    p = []
    for fold, told in zip(study.folds, facts, strict=True):
        scores = study.model(fold, {"x": windows[:2]}).predict({"x": torch.from_numpy(windows)})
        p.append((scores["scores"] / told["temperature"]).softmax(dim=1)[:, 1].numpy())
    return np.mean(p, axis=0), float(np.mean([told["threshold"] for told in facts]))


@pytest.mark.slow
def test_a_study_judges_new_recordings(
    run: Run, study: Study, key: Path, sample: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.parquet"
    made = predict(study, [sample / "223", sample / "101"], out, key_file=key, batch_size=5)
    table = pl.read_parquet(out)
    assert {"start", "seconds", "p.high", "p.low", "threshold", "said"} <= set(table.columns)
    per = pl.read_parquet(tmp_path / "p.records.parquet")
    assert sorted(per["folds"]) == [1, 2]  # 101 was tested by one of them, 223 is a stranger
    assert "1 of 2 patients are in the study" in made.notes[0]
    stranger = per.filter(pl.col("folds") == 2)["item"][0]
    with indexed(study, [sample / "223"], key_file=key) as index:
        prepared = prepare(index, plugin, study.recipe.prepare)
        samples = resolve(plugin.dataset)(prepared.items, prepared.arrays, **study.recipe.dataset)
    want, threshold = told_by(study, samples.read(np.arange(len(samples)))["x"])
    mine = table.filter(pl.col("item") == stranger).sort("start")
    np.testing.assert_allclose(mine[f"p.{study.result.classes[1]}"], want, atol=1e-5)
    assert mine["threshold"][0] == pytest.approx(threshold)


def test_a_study_judges_a_stream(run: Run, study: Study, sample: Path, tmp_path: Path) -> None:
    x, names, fs = recording(sample)
    source, out = written(x, names, tmp_path / "x.csv"), tmp_path / "lines"
    assert follow(study, source, out, fs=fs, wait=0.0) > 10
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    want, threshold = told_by(study, causal(x.astype(np.float64), names, fs, run).astype("f4"))
    second = study.result.classes[1]
    p = np.array([line[f"p.{second}"] for line in lines])
    np.testing.assert_allclose(p, want[: len(p)], atol=2e-3)
    sure = np.abs(p - threshold) > 1e-2
    said = np.array([line["said"] == second for line in lines])
    np.testing.assert_array_equal(said[sure], p[sure] >= threshold)
    assert set(lines[0]) == {"start", "p.high", "p.low", "threshold", "said"}


def test_a_run_on_ecg_predicts_no_ppg(run: Run, key: Path, sample: Path, tmp_path: Path) -> None:
    """A pulse in the place of an ECG would be embedded as if it were one."""
    fs = 64.0
    t = np.arange(60 * int(fs)) / fs
    rows = [f"{a:.4f},{np.sin(7 * a):.4f},{np.cos(7 * a):.4f}" for a in t]
    (tmp_path / "pulse.csv").write_text("\n".join(["time,ppg_green,acc_x", *rows]) + "\n")
    with pytest.raises(MedclError, match=r"none of the leads .* of the kinds PPG, ACC"):
        predict(run, [tmp_path / "pulse.csv"], tmp_path / "p.parquet", key_file=key)
    x, names, rate = read_signal(sample / "114.hea")
    np.savez(tmp_path / "one.npz", **{names[0]: x[0, : round(60 * rate)]}, fs=rate)
    made = predict(run, [tmp_path / "one.npz"], tmp_path / "q.parquet", key_file=key)
    (lacks,) = [name for name in made.findings if name.startswith("lacks:")]
    noticed = pl.read_parquet(tmp_path / "q.records.parquet", glob=False)["findings"][0].to_list()
    assert lacks in noticed
