"""One flipped byte in anything that is read back is an error, or is mended and said: never silent.

On digits of synthetic patients: an index, a run with checkpoints, embeddings, bags, a probe, a
study in folds and its evaluation, what predictions are measured by, and an exported encoder.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import medcl
from medcl import checkpoints, manifest
from medcl.archive.index import Index
from medcl.audit.compare import read as predictions_of
from medcl.audit.evaluate import evaluate
from medcl.embeddings.bags import embed_bags
from medcl.embeddings.embeddings import Embeddings, embed_run
from medcl.engine.pretrain import pretrain
from medcl.errors import IntegrityWarning, MedclError
from medcl.export import export
from medcl.finetune.finetune import finetune, opened
from medcl.finetune.opened import Study
from medcl.predict.reference_set import reference
from medcl.private import read_recipe, recall
from medcl.probe.classifier import classifier
from medcl.probe.probe import probe
from medcl.probe.result import ProbeResult
from medcl.report import cards
from medcl.report.audit_section import evaluation
from medcl.run import Run
from medcl_pathology import bagfiles

sys.path.append(str(Path(__file__).parent / "engine"))
import tiny_engine

FLIPS = 10
SMALL = ("finetune.epochs=2", "finetune.bootstraps=100", "finetune.batch_size=64")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Everything that is read back, made once."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "key").write_text("synthetic patients have no secrets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDCL_KEY_FILE", str(folder / "key"))
        patch.setattr("medcl.embeddings.sources.commit", lambda: "0123456789ab")
        tiny_engine.install(patch.setattr)
        index = tiny_engine.index(folder)
        recipe = tiny_engine.recipe(
            {
                "trainer": {"steps": 20, "checkpoint_every": 10},
                "probe": {"task": "digit", "bootstraps": 100, "fractions": [1.0], "baselines": []},
            }
        )
        run = pretrain(recipe, index, folder / "run")
        embed_run(run, None, folder / "embeddings", device="cpu")
        embed_bags(recipe, index, folder / "bags", run=run, device="cpu")
        probe([run], device="cpu")
        reference(run, run.encoder(), "digit", device="cpu")
        export(run, folder / "exported")
        export(run, folder / "huggingface", to="huggingface-folder")
        settings = [*SMALL, "finetune.folds=2", "finetune.label=digit"]
        finetune(opened(run.path, None, settings), folder / "study", device="cpu")
        evaluate(folder / "study", corruptions=(), attack=False, device="cpu", resamples=20)
        yield folder


def weights(module: torch.nn.Module) -> str:
    return manifest.digest(dict(module.state_dict()))


def index_of(home: Path) -> Any:
    index = Index.open(home / "index")
    parts = index.items, index.rejects, index.paths
    tables = [part.rows() for part in parts], index.site_names()
    return tables, str(index.archive), index.reader, index.key_check


def run_of(home: Path) -> Any:
    run = Run.open(home / "run")
    curves = cards.training_curves(run)
    if isinstance(curves, cards.Absent) and "damaged" in curves.reason:
        raise MedclError(curves.reason)  # as the page says
    where = recall(run.path)
    told = run.recipe, run.facts, run.split(), where, str(curves.rows())  # type: ignore[union-attr]
    return told, weights(run.encoder())


def checkpoints_of(home: Path) -> Any:
    newest, damaged = checkpoints.newest(home / "run" / "checkpoints")
    assert newest is not None
    for sentence in damaged:
        warnings.warn(sentence, IntegrityWarning, stacklevel=1)
    state = torch.load(newest, weights_only=True)["state_dict"]
    if damaged:  # the older one: right, but another
        assert newest.name == "step-000000010.ckpt"
        return checkpoints_of.whole  # type: ignore[attr-defined]
    checkpoints_of.whole = manifest.digest(state)  # type: ignore[attr-defined]
    return checkpoints_of.whole  # type: ignore[attr-defined]


def embeddings_of(home: Path) -> Any:
    run = Run.open(home / "run")
    made = embed_run(run, None, home / "embeddings", device="cpu")
    there = Embeddings.load(home / "embeddings")
    assert (there.x == made.x).all()
    return list(made.ids), list(made.patients), made.x.tobytes(), manifest.digest(dict(made.labels))


def bags_of(home: Path) -> Any:
    bag = bagfiles.load(sorted((home / "bags").glob("*.h5"))[0], None)
    return bag.features.tobytes()


def bag_facts_of(home: Path) -> Any:
    run = Run.open(home / "run")
    embed_bags(run.recipe, home / "index", home / "bags", run=run, device="cpu")
    return None


def probe_of(home: Path) -> Any:
    result = probe([Run.open(home / "run")], device="cpu").as_dict()
    predictions_of(home / "run")
    run = Run.open(home / "run")
    head = manifest.digest(vars(classifier(run, run.encoder(), "digit", device="cpu")))
    return head, {
        n: v for n, v in result.items() if n in ("scores", "differences", "classes", "test")
    }


def reference_of(home: Path) -> Any:
    run = Run.open(home / "run")
    made = reference(run, run.encoder(), "digit", device="cpu")
    return manifest.digest(vars(made.anomaly_scorer), vars(made.head))


def study_of(home: Path) -> Any:
    study = Study.open(home / "study")
    questioned = evaluation(study.path, study.result)
    if isinstance(questioned, cards.Absent):
        raise MedclError(f"evaluation or its manifest: {questioned.reason}")  # as the page says
    example = {"x": np.zeros((2, 64), np.float32)}
    folds = [
        (weights(study.model(fold, example)), study.tested(fold).rows(), study.parts(fold, []))
        for fold in study.folds
    ]
    found = predictions_of(study.path)
    told = study.pretrained_on(), study.result.as_dict(), questioned.as_dict(), recall(study.path)
    parts = [str(part) for part in (read_recipe(study.path), told, folds)]
    return parts, found.probability.tobytes(), manifest.load(study.path)


def exported_of(home: Path) -> Any:
    return weights(medcl.load_encoder(home / "exported"))


def huggingface_of(home: Path) -> Any:
    return weights(medcl.load_encoder(home / "huggingface"))


READERS: dict[str, Callable[[Path], Any]] = {
    "index": index_of,
    "run/checkpoints": checkpoints_of,
    "run/probe": probe_of,
    "run/predict": reference_of,
    "run": run_of,
    "embeddings": embeddings_of,
    "bags/bags.json": bag_facts_of,
    "bags/manifest.json": bag_facts_of,
    "bags": bags_of,
    "study": study_of,
    "exported": exported_of,
    "huggingface": huggingface_of,
}
"""What reads the files below a folder; the first that fits."""
NOT_READ = "run/checkpoints/step-000000010.ckpt"
"""While the newer one is whole: see the next test."""
MADE_ANEW = "index/private/scan/"
"""What an index is compared with: where that is damaged, the archive is scanned."""
FOR_PEOPLE = ("README.md", "config.json", "modeling_medcl.py", "bags.json")
"""Noted, but not read back by medcl."""


def artefacts(home: Path) -> list[Path]:
    """All files that a manifest knows, the manifests, and one bag."""
    found = [next(iter(sorted((home / "bags").glob("*.h5"))))]
    for path in sorted(home.rglob(manifest.FILE)):
        noted = manifest.load(path.parent)
        assert noted is not None
        found += [path, *(path.parent / name for name in noted.files if name not in FOR_PEOPLE)]
    return found


def forget() -> None:
    """As a new process would."""
    manifest._checked.clear()
    manifest._said.clear()
    manifest._read.cache_clear()


@pytest.mark.slow
def test_all_that_is_read_back_is_noted(home: Path) -> None:
    names = {path.relative_to(home).as_posix() for path in artefacts(home)}
    for wanted in (
        "run/encoder.safetensors", "run/checkpoints/step-000000020.ckpt", "run/split.parquet",
        "run/metrics.csv", "run/run.json", "run/recipe.yaml", "run/private/where.json",
        "run/probe/probe.json", "run/probe/predictions.parquet",
        "run/probe/head.digit.safetensors", "run/predict/digit/novelty.safetensors",
        "embeddings/embeddings.npy",
        "embeddings/samples.parquet", "study/finetune.json", "study/predictions.parquet",
        "study/folds/r0f1/model.safetensors", "study/folds/r0f1/fold.json",
        "study/folds/r0f1/split.parquet", "study/folds/r0f1/predictions.parquet",
        "study/evaluation/evaluation.json", "study/pretrained.parquet",
        "exported/encoder.safetensors", "exported/encoder.json", "huggingface/model.safetensors",
        "index/items.parquet", "index/rejects.parquet", "index/private/paths.parquet",
    ):  # fmt: skip
        assert wanted in names


@pytest.mark.slow
@pytest.mark.parametrize("group", list(READERS))
def test_a_flipped_byte_is_never_silent(home: Path, group: str, tmp_path: Path) -> None:
    names = [path.relative_to(home).as_posix() for path in artefacts(home)]
    first = {name: next(n for n in READERS if f"{name}/".startswith(f"{n}/")) for name in names}
    mine = [
        name
        for name, reader in first.items()
        if reader == group and name != NOT_READ and not name.startswith(MADE_ANEW)
    ]
    if group == "bags/bags.json":
        pytest.skip("for people; what is compared is in the manifest")
    assert mine, "nothing to damage"
    read = READERS[group]
    forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error", IntegrityWarning)
        whole = read(home)
    for name in mine:
        content = (home / name).read_bytes()
        folder = (home / name).parent
        backup = Path(shutil.copytree(folder, tmp_path / name.replace("/", "_")))
        for at in np.linspace(0, len(content) - 1, FLIPS).astype(int):
            damaged = bytearray(content)
            damaged[at] ^= 0x55
            (home / name).write_bytes(damaged)
            forget()
            try:
                _is_noticed(read, home, name, str(whole))
            finally:
                shutil.rmtree(folder)
                shutil.copytree(backup, folder)
    forget()
    assert str(read(home)) == str(whole)


def _is_noticed(read: Callable[[Path], Any], home: Path, name: str, whole: str) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            again = read(home)
        except MedclError as error:
            sentence = str(error)
            assert Path(name).name.partition(".")[0] in sentence
            return
    assert any(issubclass(w.category, IntegrityWarning) for w in said), f"{name}: nothing is said"
    assert str(again) == whole, f"{name}: another result"


@pytest.mark.slow
def test_a_run_goes_on_from_the_older_checkpoint_and_says_so(home: Path, tmp_path: Path) -> None:
    """It ends with the same weights and curves as one that nothing happened to."""
    whole = Run.open(home / "run")
    out = Path(shutil.copytree(whole.path, tmp_path / "run"))
    (out / "encoder.safetensors").unlink()
    newest = out / "checkpoints" / "step-000000020.ckpt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    (out / "metrics.csv").write_text("step,loss\n1,7\n")  # not trusted
    forget()
    with pytest.warns(IntegrityWarning, match="step-000000020.ckpt is damaged: training went on"):
        run = pretrain(whole.recipe, home / "index", out)
    assert weights(run.encoder()) == weights(whole.encoder())
    assert (out / "metrics.csv").read_text() == (whole.path / "metrics.csv").read_text()
    assert "step-000000020.ckpt is damaged" in run.facts["warnings"][0]
    for path in (out / "checkpoints").glob("*.ckpt"):
        path.write_bytes(b"PK" + path.read_bytes()[2:-9])
    (out / "encoder.safetensors").unlink()
    with pytest.raises(MedclError, match="All checkpoints in .* are damaged"):
        pretrain(whole.recipe, home / "index", out)


@pytest.mark.slow
def test_what_was_made_before_opens_unverified(home: Path, tmp_path: Path) -> None:
    for name in ("run", "study", "embeddings", "exported"):
        folder = Path(shutil.copytree(home / name, tmp_path / name))
        for path in folder.rglob(manifest.FILE):
            path.unlink()
    forget()
    with pytest.warns(IntegrityWarning, match="run was written before checksums were kept"):
        encoder = Run.open(tmp_path / "run").encoder()
    assert weights(encoder) == weights(Run.open(home / "run").encoder())
    study = Study.open(tmp_path / "study")
    example = {"x": np.zeros((2, 64), np.float32)}
    with pytest.warns(IntegrityWarning, match="study was written before") as said:
        _ = [study.model(fold, example) for fold in study.folds]
    assert len(said) == 1, "once, not for each fold"
    with pytest.warns(IntegrityWarning, match="embeddings was written before"):
        Embeddings.load(tmp_path / "embeddings")
    with pytest.warns(IntegrityWarning, match="exported was written before"):
        medcl.load_encoder(tmp_path / "exported")
    card = dict(cards.method_card(Run.open(tmp_path / "run")).facts)
    assert card["files"] == manifest.UNVERIFIED
    card = dict(cards.method_card(Run.open(home / "run")).facts)
    assert card["files"] == manifest.VERIFIED
    ProbeResult.load(tmp_path / "run" / "probe")


def renumbered(folder: Path, change: dict[str, Any]) -> None:
    """The folder's manifest with another number of its kind's format, sealed as whole."""
    raw = json.loads((folder / manifest.FILE).read_text()) | change
    raw = {name: value for name, value in raw.items() if name != "sha256" and value is not None}
    (folder / manifest.FILE).write_text(json.dumps(raw | {"sha256": manifest.digest(raw)}))


FORMATS: dict[str, Callable[[Path], Any]] = {
    "index": index_of,
    "run": lambda home: Run.open(home / "run"),
    "embeddings": lambda home: Embeddings.load(home / "embeddings"),
    "study": lambda home: Study.open(home / "study"),
    "exported": exported_of,
}


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_newer_format_is_one_sentence_and_an_older_one_is_read(home: Path, name: str) -> None:
    path = home / name / manifest.FILE
    before = path.read_text()
    kind = json.loads(before)["kind"]
    try:
        renumbered(home / name, {"content": 7})
        forget()
        with pytest.raises(MedclError, match=rf"{kind} of format 7, .* up to 1: update medcl"):
            FORMATS[name](home)
        renumbered(home / name, {"content": None})  # of before they were numbered
        forget()
        FORMATS[name](home)
    finally:
        path.write_text(before)
        forget()


def test_predictions_carry_a_number(home: Path, tmp_path: Path) -> None:
    from medcl import predict

    predict(home / "run", home / "archive" / "p00.npy", tmp_path / "p.parquet", device="cpu")
    for name in ("p.parquet", "p.records.parquet", "p.patients.parquet"):
        noted = pl.read_parquet_metadata(tmp_path / name)
        assert (noted["medcl.predictions"], noted["medcl"]) == ("1", medcl.__version__)


def test_a_newer_manifest_is_one_sentence(home: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(home / "run", tmp_path / "run"))
    path = folder / manifest.FILE
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"format": manifest.FORMAT + 1}))
    with pytest.raises(MedclError, match=r"manifest\.json is of format 2.*update medcl"):
        Run.open(folder)


def test_a_file_of_before_is_listed_when_it_is_written_again_as_it_was(tmp_path: Path) -> None:
    from medcl import manifest

    (tmp_path / "facts.json").write_text("{}")
    manifest.write_text(tmp_path / "facts.json", "{}")
    found = manifest.load(tmp_path)
    assert found is not None
    assert found.files == {"facts.json": (manifest.of_file(tmp_path / "facts.json"),)}
