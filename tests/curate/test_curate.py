"""Curation: distances against their definitions, hashing against all pairs, and the new index."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.metrics import normalized_mutual_info_score
from synthetic_plugin import plugin, recording

from medcl import nearest
from medcl.archive.index import Index, build
from medcl.curate import fingerprints as compare
from medcl.curate.across import across
from medcl.curate.curate import curate
from medcl.curate.curation_report import png
from medcl.curate.within import Reduced
from medcl.errors import UsageError

DIGITS = np.kron((load_digits().images * 15).astype(np.uint8), np.ones((1, 8, 8), np.uint8))


# --- distances ------------------------------------------------------------------------------------


def test_dhash_by_hand() -> None:
    """Brighter to the right sets a bit; brightness and contrast do not matter."""
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 3, (64, 1))
    pictures = np.stack([ramp, ramp[:, ::-1], ramp // 2 + 40, np.full_like(ramp, 7)])
    assert [f"{int(code):x}" for code in compare.dhash(pictures)] == ["f" * 16, "0", "f" * 16, "0"]


def test_dhash_of_digits_follows_their_rows() -> None:
    """Against a plain loop over the averaged cells."""
    small = compare.shrink(DIGITS[:5], 8, 9)
    for code, cells in zip(compare.dhash(DIGITS[:5]), small, strict=True):
        bits = "".join(
            "1" if row[c + 1] > row[c] + 1e-9 else "0" for row in cells for c in range(8)
        )
        assert int(code) == int(bits, 2)


@pytest.mark.parametrize(("rows", "columns"), [(8, 9), (64, 64), (5, 7), (1, 1)])
def test_shrinking_keeps_the_mean(rows: int, columns: int) -> None:
    small = compare.shrink(DIGITS[:3], rows, columns)
    assert small.shape == (3, rows, columns)
    assert np.allclose(small.mean(axis=(1, 2)), DIGITS[:3].mean(axis=(1, 2)))


def test_structural_similarity_against_torchmetrics() -> None:
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure as reference

    mine = 1 - compare.ssim(DIGITS[:6])(0, np.arange(1, 6))
    for n, value in enumerate(mine, start=1):
        a, b = (torch.tensor(DIGITS[[i]][None], dtype=torch.float64) for i in (0, n))
        expected = reference(a, b, gaussian_kernel=False, kernel_size=7, data_range=255.0)
        assert abs(value - float(expected)) < 0.02  # they treat the border otherwise
    assert compare.ssim(DIGITS[:1])(0, np.array([0]))[0] == pytest.approx(0)


def test_mutual_information_against_sklearn() -> None:
    level = (DIGITS[:4].astype(int) * 32) // 256
    mine = compare.mutual_information(DIGITS[:4])(0, np.arange(4))
    for n in range(4):
        expected = normalized_mutual_info_score(level[0].ravel(), level[n].ravel())
        assert mine[n] == pytest.approx(1 - expected, abs=1e-9)


def test_greedy_by_hand() -> None:
    places = np.array([0.0, 1.0, 2.0, 10.0, 11.5, 3.0])
    kept, dropped = compare.greedy(6, lambda i, o: np.abs(places[o] - places[i]), 2.0)
    assert kept == [0, 3, 5]
    assert [(i, j) for i, j, _ in dropped] == [(1, 0), (2, 0), (4, 3)]


# --- between items --------------------------------------------------------------------------------


def one_by_one(distance: np.ndarray, group: list[int], limit: float) -> list[tuple[int, int]]:
    """The rule, by a plain loop over all pairs: (dropped, kept instead)."""
    kept: list[int] = []
    dropped = []
    for n in range(len(distance)):
        near = [(distance[n, m], m) for m in kept if group[m] != group[n]]
        near = [pair for pair in near if pair[0] <= limit]
        if near:
            dropped.append((n, min(near)[1]))
        else:
            kept.append(n)
    return dropped


def items_of(counts: list[int], codes: np.ndarray | None = None) -> list[Reduced]:
    ends = np.cumsum(counts)
    return [
        Reduced(
            f"i{n:03d}",
            np.arange(count, dtype=float),
            np.zeros(count, np.uint64) if codes is None else codes[end - count : end],
            list(range(count)),
            [],
        )
        for n, (count, end) in enumerate(zip(counts, ends, strict=True))
    ]


def dropped_of(found: Any, counts: list[int]) -> list[tuple[int, int]]:
    starts = np.cumsum([0, *counts])
    place = {f"i{n:03d}": int(starts[n]) for n in range(len(counts))}
    return [(place[d.item] + d.part, place[d.kept_item] + d.kept_part) for d in found]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 20), st.sampled_from([3, 64]))
def test_between_items_as_all_pairs_one_by_one(seed: int, bits: int, block: int) -> None:
    random = np.random.default_rng(seed)
    counts = random.integers(1, 6, 12).tolist()
    total = sum(counts)
    codes = random.integers(0, 2**63, 6).astype(np.uint64)[random.integers(0, 6, total)]
    for n in range(total):
        for bit in random.choice(64, random.integers(0, 12), replace=False).tolist():
            codes[n] ^= np.uint64(1) << np.uint64(bit)
    x = random.standard_normal((5, 8)).astype(np.float32)[random.integers(0, 5, total)] + 3
    x += 0.3 * random.standard_normal(x.shape).astype(np.float32)
    names = [f"i{n:03d}" for n in range(len(counts))]
    groups = random.integers(0, 5, len(counts)).tolist()
    frame = pl.DataFrame({"id": names, "group": [f"g{g}" if g else None for g in groups]})
    of_item = [g if g else 10 + n for n, g in enumerate(groups)]
    own = np.repeat(of_item, counts).tolist()
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    hamming = np.bitwise_count(codes[:, None] ^ codes)
    features = {
        r.item: x[end - len(r.kept) : end]
        for r, end in zip(items_of(counts), np.cumsum(counts), strict=True)
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medcl.curate.across._BLOCK", block)
        found = across(items_of(counts, codes), frame, bits, "dhash")
        assert dropped_of(found, counts) == one_by_one(hamming, own, bits)
        limit = 0.001 + bits / 800  # no pair lies within rounding of it
        near = across(items_of(counts), frame, limit, "embedding", features=features)
        assert dropped_of(near, counts) == one_by_one(1 - unit @ unit.T, own, limit)


def test_an_index_finds_at_least_99_of_100_near_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows without clusters, and of rows around a common mean, which signs cannot tell apart."""
    random = np.random.default_rng(0)
    for mean in (0, 3):
        x = random.standard_normal((4000, 32)).astype(np.float32) + mean
        copies = np.arange(1, 4000, 2)
        x[copies] = x[copies - 1] + 0.1 * random.standard_normal((2000, 32)).astype(np.float32)
        counts = [1] * 4000
        features = {r.item: x[[n]] for n, r in enumerate(items_of_many(4000))}
        frame = pl.DataFrame({"id": list(features)})
        found = {}
        for exact in (10**6, 1000):
            monkeypatch.setattr(nearest, "EXACT", exact)
            dropped = across(items_of_many(4000), frame, 0.01, "embedding", features=features)
            found[exact] = {d.item for d in dropped}
        assert len(found[10**6]) >= len(copies) * 0.9, counts[0]
        assert len(found[1000] & found[10**6]) >= 0.99 * len(found[10**6])
        assert found[1000] <= found[10**6]


def items_of_many(count: int) -> list[Reduced]:
    zeros = np.zeros(1, np.uint64)
    return [Reduced(f"i{n:05d}", np.zeros(1), zeros, [0], []) for n in range(count)]


def test_what_is_there_many_times_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third is air: the same code. All but one are dropped, and looked up as one."""
    codes = np.random.default_rng(0).integers(0, 2**63, 6000).astype(np.uint64)
    codes[::3] = 7
    reduced = [
        Reduced(f"i{n:05d}", np.zeros(1), codes[n : n + 1], [0], []) for n in range(len(codes))
    ]
    found = list(across(reduced, pl.DataFrame({"id": [r.item for r in reduced]}), 6, "dhash"))
    air = [d for d in found if int(d.item[1:]) % 3 == 0]
    assert len(air) == 1999
    assert {d.kept_item for d in air} == {"i00000"}


# --- the new index --------------------------------------------------------------------------------


def pictures(held: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The synthetic plugin's numbers name digits: real pictures of them."""
    return held["x"].astype(float), DIGITS[held["x"].astype(int)]


pictured = replace(plugin, pictures="test_curate:pictures")


@pytest.fixture
def index(tmp_path: Path) -> Index:
    recording(tmp_path / "a", "one", "person_a", numbers=(0, 0, 1, 2, 1))
    recording(tmp_path / "a", "two", "person_b", numbers=(2, 3))
    recording(tmp_path / "a", "three", "person_c", numbers=(2, 2))
    build(tmp_path / "a", tmp_path / "idx", pictured)
    return Index.open(tmp_path / "idx")


def kept(found: Index) -> dict[str, list[float] | None]:
    return {found.locate(i).removesuffix(".rec"): k for i, k in found.items["id", "keep"].rows()}


def test_within_items(index: Index, tmp_path: Path) -> None:
    summary = curate(index, pictured, tmp_path / "new", distance=0)
    assert (summary.parts, summary.dropped_within, summary.kept) == (9, 3, 6)
    found = Index.open(tmp_path / "new")
    assert kept(found) == {"one": [0.0, 1.0, 2.0], "two": None, "three": [2.0]}
    assert found.fields == index.fields
    dropped = pl.read_parquet(tmp_path / "new" / "curation" / "dropped.parquet")
    assert dropped["scope"].to_list() == ["within"] * 3


def test_across_items_but_not_within_a_group(index: Index, tmp_path: Path) -> None:
    summary = curate(index, pictured, tmp_path / "new", distance=0, across=0)
    assert (summary.dropped_across, summary.kept) == (2, 4)
    assert summary.items_kept in (2, 3)  # whichever came first in the order of keyed ids
    everything = [n for k in kept(Index.open(tmp_path / "new")).values() for n in k or ()]
    assert everything.count(2.0) <= 1
    grouped = index.items.with_columns(group=pl.lit("g_same"))
    together = replace(index, items=grouped)
    summary = curate(together, pictured, tmp_path / "other", distance=0, across=0)
    assert summary.dropped_across == 0


def test_items_of_which_nothing_is_left_are_rejects(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        recording(tmp_path / "a", name, f"person_{name}", numbers=(5, 6))
    build(tmp_path / "a", tmp_path / "idx", pictured)
    curate(Index.open(tmp_path / "idx"), pictured, tmp_path / "new", across=2)
    found = Index.open(tmp_path / "new")
    assert len(found.items) == 1
    assert found.rejects["code"].to_list() == ["near-duplicate"] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "distance"), [("every-n", 2), ("ssim", 0.05), ("mi", 0.05), ("dhash", 0)]
)
def test_every_strategy_and_process_count(
    index: Index, tmp_path: Path, strategy: Any, distance: float
) -> None:
    chosen: dict[str, Any] = {"strategy": strategy, "distance": distance}
    found = []
    for workers in (1, 2):
        out = tmp_path / f"new{workers}"
        curate(index, pictured, out, **chosen, across=0, workers=workers)
        found.append((out / "items.parquet").read_bytes())
    assert found[0] == found[1]
    curate(index, pictured, tmp_path / "new", **chosen)
    ones = kept(Index.open(tmp_path / "new"))
    assert ones["one"] == ([0.0, 1.0, 1.0] if strategy == "every-n" else [0.0, 1.0, 2.0])


def test_by_embeddings(index: Index, tmp_path: Path) -> None:
    """A row for each part; or, where a modality has no pictures, items as a whole."""
    x, items = [], []
    for item in index.items["id"]:
        name = index.locate(item)
        for number in {"one.rec": (0, 0, 1, 2, 1), "two.rec": (2, 3), "three.rec": (2, 2)}[name]:
            items.append(item)
            x.append(np.eye(8, dtype=np.float32)[number])
    embedded = (items, np.array(x))
    settings: dict[str, Any] = {"strategy": "embedding", "embedded": embedded, "distance": 0.01}
    curate(index, pictured, tmp_path / "new", **settings)
    assert kept(Index.open(tmp_path / "new"))["one"] == [0.0, 1.0, 2.0]
    whole = replace(plugin, pictures=None)
    assert curate(index, whole, tmp_path / "whole", **settings, across=0.01).items_kept == 3
    settings["embedded"] = (items[1:], np.array(x[1:]))
    with pytest.raises(UsageError, match="rows for an item of"):
        curate(index, pictured, tmp_path / "bad", **settings)


def test_the_report_shows_pairs_and_nobody(index: Index, tmp_path: Path) -> None:
    curate(index, pictured, tmp_path / "new", distance=0, across=0)
    page = (tmp_path / "new" / "curation" / "report.html").read_text()
    assert page.count("<figure>") == 5
    assert page.count("data:image/png") == 10
    assert "person_" not in page
    assert str(tmp_path) not in page


def test_the_store_is_shared_and_the_private_folder_closed(index: Index, tmp_path: Path) -> None:
    curate(index, pictured, tmp_path / "new")
    assert (tmp_path / "new" / "store").resolve() == (index.path / "store").resolve()
    assert (tmp_path / "new" / "private").stat().st_mode & 0o777 == 0o700
    curate(index, pictured, tmp_path / "new", strategy="every-n")  # again, another way
    with pytest.raises(UsageError, match="curated index"):
        build(index.archive, tmp_path / "new", pictured)


def test_what_makes_no_sense_is_refused(index: Index, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folder of its own"):
        curate(index, pictured, index.path)
    with pytest.raises(UsageError, match="makes no pictures"):
        curate(index, plugin, tmp_path / "x")
    with pytest.raises(UsageError, match="belong together"):
        curate(index, pictured, tmp_path / "x", strategy="embedding")
    with pytest.raises(UsageError, match="at least 1"):
        curate(index, pictured, tmp_path / "x", strategy="every-n", distance=0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        curate(index, pictured, tmp_path / "full")


def test_png_is_one() -> None:
    data = png(DIGITS[0])
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", data[16:24]) == (64, 64)
    start = data.index(b"IDAT") + 4
    lines = zlib.decompress(
        data[start : start + struct.unpack(">I", data[start - 8 : start - 4])[0]]
    )
    assert np.array_equal(np.frombuffer(lines, np.uint8).reshape(64, 65)[:, 1:], DIGITS[0])
