"""medcl embed: slides to bags, whole, resumable, shared out, in the layout of other tools."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest
import torch
from pathology_synthetic import painted, tiff
from typer.testing import CliRunner

from medcl import manifest
from medcl import recipe as recipes
from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.embeddings import bags, parts
from medcl.errors import MedclError, UsageError
from medcl.run import build_encoder, load_samples
from medcl_cli.main import app
from medcl_pathology.dataset import dataset
from medcl_pathology.plugin import plugin

SMALL = ["encoder.depth=10", "encoder.base=4", "prepare.size=64", "prepare.mpp=2.0"]


def recipe(*more: str) -> recipes.Recipe:
    plain = {"name": "t", "plugin": "pathology", "method": {"name": "simclr"}}
    return recipes.parse(plain, ["encoder={name: resnet}", *SMALL, *more])


@pytest.fixture
def two(tmp_path, cmu, key_file):
    """A real slide and a synthetic one, indexed."""
    root = tmp_path / "slides"
    root.mkdir()
    shutil.copy(cmu, root)
    tiff(root / "synthetic.tif", painted(), tile=256)
    build(root, tmp_path / "idx", plugin, key_file=key_file)
    return tmp_path / "idx"


def read(path):
    """As CLAM's Generic_MIL_Dataset and TRIDENT's readers open a bag."""
    with h5py.File(path, "r") as file:
        return file["features"][:], file["coords"][:], dict(file["coords"].attrs), dict(file.attrs)


def test_a_bag_holds_what_the_encoder_makes_of_each_tile(two, tmp_path):
    done = bags.embed_bags(recipe(), two, tmp_path / "bags", half=False, batch_size=7)
    assert (done.written, done.there, done.failed, done.width) == (2, 0, {}, 32)
    samples = load_samples(recipe(), two)
    encoder = build_encoder(recipe(), 0).eval()
    for item in set(samples.items):
        features, coords, tile, about = read(tmp_path / "bags" / f"{item}.h5")
        where = np.flatnonzero(np.asarray(samples.items) == item)
        batch = samples.read(where)
        with torch.inference_mode():
            wanted = encoder(torch.from_numpy(batch["x"])).numpy()
        assert features == pytest.approx(wanted, abs=1e-4)
        assert np.array_equal(coords, batch["coords"])
        assert tile["patch_size"] == 64
        assert tile["patch_size_level0"] == round(64 * 2.0 / about["mpp"] * about["span_x"] / 64)
        assert about["item"] == item
        assert about["patient"].startswith("p_")
        assert about["encoder_fingerprint"] == bags.fingerprint(encoder)
    text = (tmp_path / "bags" / "bags.json").read_text()
    assert "cmu" not in text
    assert str(two) not in text


def test_what_is_there_is_kept_and_what_is_missing_is_made(two, tmp_path):
    out = tmp_path / "bags"
    bags.embed_bags(recipe(), two, out)
    first, second = sorted(out.glob("*.h5"))
    before, wanted = first.stat().st_mtime_ns, second.read_bytes()
    second.write_bytes(wanted[:100])  # as another tool might leave it
    done = bags.embed_bags(recipe(), two, out)
    assert (done.written, done.there) == (1, 1)
    assert first.stat().st_mtime_ns == before
    assert np.array_equal(read(second)[0], read_bytes(tmp_path, wanted)[0])
    assert not [p for p in out.iterdir() if p.name.endswith(".tmp")]
    with pytest.raises(UsageError, match="other preparation"):
        bags.embed_bags(recipe("prepare.overlap=0.5"), two, out)
    with pytest.raises(UsageError, match="other encoder"):
        bags.embed_bags(recipe("seed=1"), two, out)
    with pytest.raises(UsageError, match="holds no bags"):
        bags.embed_bags(recipe(), two, two)


class Counting(torch.nn.Module):
    """The encoder of a recipe, that counts its batches and ends the process at one of them.

    The class counts, since a copy of the encoder does the work (`medcl.nn.inference`).
    """

    width = 32
    batches: ClassVar[int] = 0

    def __init__(
        self, recipe: recipes.Recipe, seed: int, *, end_at: int | None = None, kill: bool = False
    ) -> None:
        super().__init__()
        self.inner = build_encoder(recipe, seed)
        self.end_at, self.kill = end_at, kill

    def forward(self, x):
        if Counting.batches == self.end_at and self.kill:
            os.kill(os.getpid(), signal.SIGKILL)  # no handler runs, nothing is cleaned up
        if Counting.batches == self.end_at:
            raise KeyboardInterrupt
        Counting.batches += 1
        return self.inner(x)


def embed_and_be_killed(data, out):
    """In a process of its own: killed as it embeds its fifth batch."""
    bags.SAVED_EVERY = 0.0
    bags.build_encoder = partial(Counting, end_at=4, kill=True)
    bags.embed_bags(recipe(), Path(data), Path(out), batch_size=2)


@pytest.mark.parametrize("how", ["Ctrl-C", pytest.param("kill -9", marks=pytest.mark.slow)])
def test_a_bag_whose_making_was_broken_off_goes_on_within_the_slide(
    two, tmp_path, monkeypatch, how
):
    """Batches that were kept are not computed again, and the files are equal to the last byte."""
    monkeypatch.setattr(bags, "SAVED_EVERY", 0.0)
    monkeypatch.setattr(bags, "build_encoder", Counting)
    monkeypatch.setattr(Counting, "batches", 0)
    bags.embed_bags(recipe(), two, tmp_path / "whole", batch_size=2)
    wanted = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.h5")}
    every, Counting.batches = Counting.batches, 0
    out = tmp_path / "bags"
    if how == "kill -9":
        code = "import sys, test_embedded_bags as t; t.embed_and_be_killed(*sys.argv[1:])"
        ended = subprocess.run(
            [sys.executable, "-c", code, two, out], cwd=Path(__file__).parent, check=False
        )
        assert ended.returncode == -signal.SIGKILL
    else:
        monkeypatch.setattr(bags, "build_encoder", partial(Counting, end_at=4))
        with pytest.raises(KeyboardInterrupt):
            bags.embed_bags(recipe(), two, out, batch_size=2)
    assert not list(out.glob("*.h5")), "the first slide has more batches than that"
    (item,) = (out / ".parts").iterdir()
    kept = sorted(item.iterdir(), key=lambda path: int(path.stem))
    assert len(kept) == 4
    kept[-1].write_bytes(kept[-1].read_bytes()[:-30])  # the last one is damaged: made again

    Counting.batches = 0
    monkeypatch.setattr(bags, "build_encoder", Counting)
    done = bags.embed_bags(recipe(), two, out, batch_size=2)
    assert done.written == 2
    assert Counting.batches == every - 3
    assert {path.name: path.read_bytes() for path in out.glob("*.h5")} == wanted
    assert not list((out / ".parts").iterdir())


def test_parts_of_another_encoder_or_of_other_samples_are_not_taken(tmp_path):
    features = np.arange(6, dtype=np.float16).reshape(3, 2)
    batches = [(features, features[:, :1], 1), (np.empty((0, 0)), None, 4)]
    parts.save(tmp_path / "p", "this", 0, batches)
    parts.save(tmp_path / "p", "this", 8, [(features, features[:, :1], 0)])
    found = list(parts.stored(tmp_path / "p", "this"))
    assert [(len(x), bad) for x, _, bad in found] == [(3, 1), (0, 4), (3, 0)]
    assert np.array_equal(found[0][0], features)
    assert np.array_equal(found[2][1], features[:, :1])
    assert list(parts.stored(tmp_path / "p", "other")) == []
    parts.save(tmp_path / "p", "other", 0, batches)  # what follows is of the other one still
    assert len(list(parts.stored(tmp_path / "p", "other"))) == 2


def read_bytes(folder, data):
    path = folder / "copy.h5"
    path.write_bytes(data)
    return read(path)


def test_an_item_at_which_another_process_is_is_left_to_it(two, tmp_path):
    from medcl.io.atomic import locked

    out = tmp_path / "bags"
    item = Index.open(two).items["id"][0]
    bags.embed_bags(recipe(), two, out)
    (out / f"{item}.h5").unlink()
    with locked(out / ".locks" / item, "busy"):
        done = bags.embed_bags(recipe(), two, out)
    assert (done.written, done.there, done.elsewhere) == (0, 1, 1)
    assert bags.embed_bags(recipe(), two, out).written == 1


@pytest.mark.slow
def test_two_commands_fill_one_folder_without_doing_work_twice(tmp_path, key_file):
    root = tmp_path / "slides"
    root.mkdir()
    for n in range(4):
        tiff(root / f"{n}.tif", painted(seed=n), tile=256)
    build(root, tmp_path / "idx", plugin, key_file=key_file)
    prepare(Index.open(tmp_path / "idx"), plugin, recipe().prepare)
    out = tmp_path / "bags"
    command = [sys.executable, "-m", "medcl_cli.main", "embed", str(tmp_path / "idx"), "--json"]
    command += ["--encoder", "resnet", "--untrained", "--out", str(out)]
    command += [part for setting in SMALL for part in ("-s", setting)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [json.loads(process.communicate()[0]) for process in both]
    assert sum(done["written"] for done in told) == 4
    assert len(list(out.glob("*.h5"))) == 4
    assert not list((out / ".locks").iterdir())


def test_a_folder_that_another_command_is_making_is_taken(tmp_path):
    from multiprocessing.pool import ThreadPool

    about = {"encoder_fingerprint": "a", "settings": "b"}
    with ThreadPool(8) as pool:
        for n in range(20):
            pool.map(partial(bags._claim, tmp_path / f"bags{n}"), [about] * 8)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_worker_processes_make_the_same_bags(two, tmp_path):
    bags.embed_bags(recipe(), two, tmp_path / "here")
    done = bags.embed_bags(recipe(), two, tmp_path / "there", workers=2)
    assert done.written == 2
    for path in (tmp_path / "here").glob("*.h5"):
        one, other = read(path), read(tmp_path / "there" / path.name)
        assert one[0] == pytest.approx(other[0], abs=1e-2)
        assert one[3] == other[3]


class Overflowing(torch.nn.Module):
    """Synthetic: NaN for dark tiles, or values beyond half precision."""

    width = 2

    def __init__(self, *, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x):
        return torch.full((len(x), 2), self.value)


@pytest.mark.slow
@pytest.mark.parametrize(("value", "words"), [(float("nan"), "NaN"), (1e6, "half precision")])
def test_features_that_are_no_numbers_are_never_written(value, words, two, tmp_path, monkeypatch):
    monkeypatch.setattr(bags, "build_encoder", lambda recipe, seed: Overflowing(value=value))
    with pytest.raises(MedclError, match=words):
        bags.embed_bags(recipe(), two, tmp_path / "bags")
    assert not list((tmp_path / "bags").glob("*.h5"))


def test_damaged_tiles_are_left_out_and_counted(two, tmp_path, monkeypatch):
    samples = load_samples(recipe(), two)

    def read_some(positions):
        batch = samples.read(positions)
        batch["ok"] = positions % 5 != 0
        return batch

    from dataclasses import replace

    monkeypatch.setattr(bags, "samples_of", lambda *a, **k: replace(samples, read=read_some))
    done = bags.embed_bags(recipe(), two, tmp_path / "bags", batch_size=4)
    assert done.left_out == -(-len(samples) // 5)
    kept = sum(len(read(path)[0]) for path in (tmp_path / "bags").glob("*.h5"))
    assert kept == len(samples) - done.left_out


def test_bags_come_back_as_samples(two, tmp_path):
    out = tmp_path / "bags"
    bags.embed_bags(recipe(), two, out)
    prepared = prepare(Index.open(two), plugin, recipe().prepare)
    samples = dataset(prepared.items, prepared.arrays, kind="bag", bags=out)
    batch = samples.read(np.array([1, 0]))
    counts = [len(read(out / f"{samples.items[n]}.h5")[0]) for n in (1, 0)]
    assert np.bincount(batch["bag"]).tolist() == counts
    assert batch["coords"].shape == (sum(counts), 2)
    bad = out / f"{samples.items[0]}.h5"
    with h5py.File(bad, "r+") as file:
        file["features"][0, 0] = np.nan
    with pytest.raises(MedclError, match="is damaged: its SHA-256 is not the one noted"):
        samples.read(np.array([0]))
    manifest.seal_block(bad)  # as another tool might have made it
    with pytest.raises(MedclError, match=f"bag of item {samples.items[0]}: nan-features"):
        samples.read(np.array([0]))
    bad.unlink()
    with pytest.warns(UserWarning, match="1 of 2 items have no bag"):
        assert len(dataset(prepared.items, prepared.arrays, kind="bag", bags=out)) == 1


def test_slides_without_a_bag_are_named_with_the_reason(tmp_path, key_file):
    root = tmp_path / "slides"
    root.mkdir()
    tiff(root / "tissue.tif", painted(), tile=256)
    tiff(root / "unscaled.tif", painted(), mpp=None, tile=256)
    build(root, tmp_path / "idx", plugin, key_file=key_file)
    index = Index.open(tmp_path / "idx")
    (unscaled,) = (i for i in index.items["id"] if index.locate(i) == "unscaled.tif")
    done = bags.embed_bags(recipe(), tmp_path / "idx", tmp_path / "bags")
    assert done.written == 1
    assert list(done.failed) == [unscaled]
    assert "reader.mpp=" in done.failed[unscaled]
    study = [recipes.load("pathology/abmil", [f"dataset.bags={tmp_path / 'bags'}"])]
    (root / "tissue.tif").unlink()
    build(root, tmp_path / "idx", plugin, key_file=key_file)
    for made in (recipe(), *study):
        with pytest.raises(
            MedclError, match="1 of 1 items was left out: missing-mpp: .*reader.mpp="
        ):
            load_samples(made, tmp_path / "idx")


@pytest.mark.slow
def test_a_folder_of_medcls_bags_says_patients_and_untrained_encoders(two, tmp_path, key_file):
    """An index of the folder instead of ``dataset.bags``: what the bags say is not lost."""
    bags.embed_bags(recipe(), two, tmp_path / "bags")
    build(tmp_path / "bags", tmp_path / "again", plugin, key_file=key_file)
    items = Index.open(tmp_path / "again").items
    assert items.height == 2
    assert items["untrained"].all()
    before = Index.open(two).items
    assert items["patient"].n_unique() == before["patient"].n_unique()
    samples = dataset(items, prepare(Index.open(tmp_path / "again"), plugin, {}).arrays, kind="bag")
    assert all(facts["untrained"] for facts in samples.facts.values())


@pytest.mark.slow
def test_the_command_line(two, tmp_path):
    sets = [part for setting in SMALL for part in ("-s", setting)]
    out = str(tmp_path / "bags")
    runner = CliRunner()
    words = ["embed", str(two), "--encoder", "resnet", *sets, "--untrained", "--out", out]
    made = runner.invoke(app, words)
    assert made.exit_code == 0, made.output
    assert "written\t2" in made.output
    none = runner.invoke(app, ["embed", str(two), "--out", out])
    assert isinstance(none.exception, UsageError)
    assert "give --encoder" in str(none.exception)
    gated = runner.invoke(app, ["embed", str(two), "--encoder", "uni", "--out", out])
    assert isinstance(gated.exception, UsageError)
    assert "huggingface.co/MahmoodLab/UNI" in str(gated.exception)
