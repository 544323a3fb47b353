"""Similar cases, on real digits of invented writers (synthetic persons)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medcl.archive.index import Index
from medcl.embeddings.nearest import nearest
from medcl.errors import UsageError
from medcl.report.retrieval_page import write
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


def test_exact_search_agrees_with_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(300, 16)).astype(np.float32)
    query = rng.normal(size=(4, 16)).astype(np.float32)
    near, where = nearest(query, bank, 7, backend="exact")
    for row, q in enumerate(query):
        cosine = [float(q @ b / np.linalg.norm(q) / np.linalg.norm(b)) for b in bank]
        best = np.argsort(cosine)[::-1][:7]
        np.testing.assert_array_equal(where[row], best)
        np.testing.assert_allclose(near[row], np.array(cosine)[best], rtol=1e-5)


@pytest.mark.parametrize("backend", ["faiss", "hnswlib"])
def test_libraries_find_the_same(backend: str) -> None:
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(500, 16)).astype(np.float32)
    query = rng.normal(size=(20, 16)).astype(np.float32)
    _, want = nearest(query, bank, 5, backend="exact")
    _, got = nearest(query, bank, 5, backend=backend)  # type: ignore[arg-type]
    shared = [len(set(a) & set(b)) for a, b in zip(want, got, strict=True)]
    assert sum(shared) >= 95, "fewer than 95 of 100 true neighbours"


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    x = np.eye(3, dtype=np.float32)
    with pytest.raises(UsageError, match="pip install faiss-cpu"):
        nearest(x, x, 1, backend="faiss")


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
