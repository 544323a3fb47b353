"""Similar cases, on real digits of invented writers (synthetic persons)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcl import nearest
from medcl.archive.index import Index
from medcl.embeddings.embeddings import Embeddings
from medcl.errors import MedclError, UsageError
from medcl.report.retrieval_page import write
from medcl.retrieval.bank import Bank
from medcl.retrieval.search import search
from medcl.run import Run, load_samples


@pytest.fixture(scope="module")
def index(digits_run: Run) -> Index:
    return Index.open(digits_run.data)


def test_similar_digits_are_found_one_a_writer(digits_run: Run, index: Index) -> None:
    samples = load_samples(digits_run.recipe, digits_run.data)
    digit = dict(zip(samples.ids, np.asarray(samples.labels["digit"]), strict=True))
    asked = samples.ids[::97]
    right = total = 0
    for sample in asked:
        found = search(digits_run, sample, k=5)
        patients = [h.patient for h in found.hits]
        assert len(set(patients)) == 5, "a patient twice"
        assert samples.patients[samples.ids.index(sample)] not in patients
        values = [h.similarity for h in found.hits]
        assert values == sorted(values, reverse=True)
        right += sum(h.labels["digit"] == digit[sample] for h in found.hits)
        total += len(found.hits)
    assert right / total > 0.8


def test_random_pairs_say_what_similarity_is_usual(digits_run: Run) -> None:
    """Against all pairs of different writers, worked out here."""
    found = search(digits_run, load_samples(digits_run.recipe, digits_run.data).ids[0], k=3)
    from medcl.embeddings.embeddings import embed

    samples = load_samples(digits_run.recipe, digits_run.data)
    x = embed(digits_run.encoder(), samples).x
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    apart = np.asarray(samples.patients)[:, None] != np.asarray(samples.patients)
    expected = np.percentile((x @ x.T)[apart], (5, 50, 95))
    assert found.random == pytest.approx(expected, abs=0.05)
    assert found.hits[0].similarity > found.random[1]


def test_a_missing_label_is_missing() -> None:
    from medcl.retrieval.search import _known

    given = [np.int64(-1), np.float64("nan"), np.str_(""), np.int64(0), np.str_("a"), np.bool_(0)]
    assert [_known(value) for value in given] == [None, None, None, 0, "a", False]


def made_up(count: int, each: int, folder: Path, tables: Index) -> tuple[Bank, np.ndarray]:
    """Samples of invented items and patients, in clusters; and the unit mean of each item."""
    rng = np.random.default_rng(0)
    x = 2 * rng.normal(size=(40, 16))[rng.integers(0, 40, count)] + rng.normal(size=(count, 16)) + 1
    items = [f"i{n // each:05d}" for n in range(count)]
    patients = [f"p{n // each // 3:05d}" for n in range(count)]
    x = x.astype(np.float32)
    ids = [f"s{n}" for n in range(count)]
    bank = Bank(tables, Embeddings(ids, items, patients, x), folder)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    means = unit.reshape(-1, each, 16).mean(1)
    return bank, means / np.linalg.norm(means, axis=1, keepdims=True)


@pytest.mark.parametrize("level", ["item", "sample"])
def test_exact_search_agrees_with_a_plain_loop(index: Index, tmp_path: Path, level: Any) -> None:
    bank, means = made_up(600, 3, tmp_path, index)
    groups = bank.groups(level)
    rows = means if level == "item" else bank.embeddings.x
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    allowed = np.arange(len(rows)) % 7 != 0
    for query in rows[::50]:
        found, last = groups.similar(query, 9, allowed)
        order = [g for g in np.argsort(-(rows @ query), kind="stable") if allowed[g]]
        assert [g for g, _ in found] == order[:9]
        np.testing.assert_allclose([s for _, s in found], rows[order[:9]] @ query, rtol=1e-5)
        assert not last
    few, last = groups.similar(rows[0], 10, np.arange(len(rows)) < 4)
    assert (len(few), last) == (4, True)


def test_an_index_of_many_finds_what_all_pairs_find(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, means = made_up(6000, 2, tmp_path, index)
    monkeypatch.setattr(nearest, "EXACT", 500)
    monkeypatch.setattr(nearest, "PROBED", 16)
    groups, everyone = bank.by_item, np.ones(3000, bool)
    right = 0
    for query in means[::60]:
        found, _ = groups.similar(query, 10, everyone)
        order = np.argsort(-(means @ query))[:10]
        right += len({g for g, _ in found} & set(order.tolist()))
        np.testing.assert_allclose(
            [s for _, s in found], means[[g for g, _ in found]] @ query, rtol=1e-5
        )
    assert right >= 0.99 * 500
    built = (tmp_path / "neighbours-item.faiss").stat()
    again = made_up(6000, 2, tmp_path, index)[0].by_item
    few = np.arange(3000) < 700  # more than are compared one by one
    found, _ = again.similar(means[5], 300, few)
    assert len(found) == 300
    assert all(few[g] for g, _ in found)
    assert (tmp_path / "neighbours-item.faiss").stat().st_mtime_ns == built.st_mtime_ns
    assert built.st_size < 0.75 * 4 * means.size + 40 * 3000, "half precision"


def test_a_damaged_index_is_said(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "EXACT", 500)
    query = made_up(6000, 2, tmp_path, index)[1][0]
    everyone = np.ones(3000, bool)
    made_up(6000, 2, tmp_path, index)[0].by_item.similar(query, 3, everyone)
    path = tmp_path / "neighbours-item.faiss"
    whole = path.read_bytes()
    path.unlink()  # it is mapped into memory: another file takes its place
    path.write_bytes(whole[:-9] + b"x" * 9)
    with pytest.raises(MedclError, match="Remove it and search again"):
        made_up(6000, 2, tmp_path, index)[0].by_item.similar(query, 3, everyone)


def test_a_second_query_of_one_process_opens_nothing(
    digits_run: Run, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = search(digits_run, index.items["id"][0], k=3)
    monkeypatch.setattr("medcl.retrieval.search.bank_of", None)
    monkeypatch.setattr("medcl.retrieval.search.Index", None)
    assert search(digits_run, index.items["id"][0], k=3) == first


def test_conditions_narrow_the_search(digits_run: Run, index: Index) -> None:
    wanted = index.items["id"][3]
    found = search(digits_run, index.items["id"][0], where=[f"id={wanted}"])
    assert [h.item for h in found.hits] == [wanted]
    assert found.patients == 1
    many = search(digits_run, index.items["id"][0], where=["digits>=60"])
    assert len(many.hits) == 10
    with pytest.raises(UsageError, match="No sample is left"):
        search(digits_run, index.items["id"][0], where=["digits>1000"])
    with pytest.raises(UsageError, match="no column 'digts'.*digits"):
        search(digits_run, index.items["id"][0], where=["digts>1"])
    with pytest.raises(UsageError, match="is no condition"):
        search(digits_run, index.items["id"][0], where=["nonsense"])
    every = search(digits_run, index.items["id"][0], where=["findings!=noisy"])
    assert len(every.hits) == 10, "a column of lists is asked for what it holds"
    with pytest.raises(UsageError, match="No sample is left"):
        search(digits_run, index.items["id"][0], where=["findings=noisy"])
    with pytest.raises(UsageError, match="holds lists"):
        search(digits_run, index.items["id"][0], where=["findings<noisy"])
    with pytest.raises(UsageError, match="holds numbers"):
        search(digits_run, index.items["id"][0], where=["digits>many"])


def test_a_path_in_the_archive_and_a_file_elsewhere_find_the_same(
    digits_run: Run, index: Index, tmp_path: Path
) -> None:
    item = index.items["id"][0]
    inside = search(digits_run, index.locate(item), k=3)
    assert [h.item for h in inside.hits] == [h.item for h in search(digits_run, item, k=3).hits]
    outside = tmp_path / "elsewhere.csv"
    outside.write_bytes((index.archive / index.locate(item)).read_bytes())
    found = search(digits_run, str(outside), k=4)
    assert found.query == "files"
    assert found.hits[0].item == item  # another name, so another person: itself is nearest
    assert found.hits[0].similarity == pytest.approx(1, abs=1e-3)
    assert [h.item for h in found.hits[1:]] == [h.item for h in inside.hits]


@pytest.mark.slow
def test_pulling_towards_the_labels_finds_more_of_the_label(digits_run: Run) -> None:
    samples = load_samples(digits_run.recipe, digits_run.data)
    digit = dict(zip(samples.ids, np.asarray(samples.labels["digit"]), strict=True))
    side = digits_run.split()
    asked = [s for s, p in zip(samples.ids, samples.patients, strict=True) if side[p] == "test"][
        ::9
    ]

    def share(pull: float) -> float:
        hits = [
            (h.labels["digit"] == digit[s])
            for s in asked
            for h in search(digits_run, s, k=8, task="digit", pull=pull).hits
        ]
        return float(np.mean(hits))

    assert share(1.0) > share(0.0)
    with pytest.raises(UsageError, match="--task"):
        search(digits_run, asked[0], pull=0.5)


def test_an_unknown_query_is_one_clear_error(digits_run: Run) -> None:
    with pytest.raises(UsageError, match="neither an item or sample"):
        search(digits_run, "i_nothing")


def test_one_tower_cannot_be_searched_across(digits_run: Run, index: Index) -> None:
    with pytest.raises(UsageError, match="'simclr', which sees one modality of a sample"):
        search(digits_run, index.items["id"][0], source="table")


def test_the_page_shows_pictures_and_escapes(digits_run: Run, index: Index, tmp_path: Path) -> None:
    samples = load_samples(digits_run.recipe, digits_run.data)
    found = search(digits_run, samples.ids[5], k=4)
    evil = found.hits[0].fields
    evil["digits"] = "<script>alert(1)</script>"
    page = write(found, samples, tmp_path / "cases.html").read_text()
    assert page.count("data:image/png") == 5  # the query and four cases
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert str(index.archive) not in page


def test_the_page_says_where_a_match_lies_in_words_too(digits_run: Run, tmp_path: Path) -> None:
    samples = load_samples(digits_run.recipe, digits_run.data)
    found = search(digits_run, samples.ids[5], k=1)
    placed = replace(
        samples,
        where=lambda at: {
            "sample": np.array(["own id"]),
            "z_mm": 1.5 * at,
            "side": np.array(["L"]),
        },
    )
    page = write(found, placed, tmp_path / "cases.html").read_text()
    assert f"{1.5 * found.hits[0].position:.6g}" in page
    assert ">L<" in page
    assert "own id" not in page, "it is above"
