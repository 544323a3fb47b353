"""Packed records are what was added, bit by bit."""

from __future__ import annotations

import datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from medcl.archive.records import Records
from medcl.plugin import FileStat, Record

texts = st.text(max_size=5) | st.just("M\udcfcller")  # of a name that is no UTF-8
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
mappings = st.dictionaries(texts, scalars, max_size=3)
made = st.builds(
    Record,
    key=texts,
    files=st.lists(texts, max_size=3).map(tuple),
    patient=texts,
    site=st.none() | texts,
    fields=mappings,
    labels=mappings,
    findings=st.lists(texts, max_size=2).map(tuple),
    private=mappings,
    group=st.none() | texts,
)


def files_of(record: Record) -> tuple[FileStat, ...]:
    return tuple(FileStat(path, n, 2**60 + n) for n, path in enumerate(record.files))


@given(st.lists(made, max_size=4), made)
def test_what_is_added_comes_back(added: list[Record], other: Record) -> None:
    records = Records()
    for record in added:
        records.add(record, files_of(record))
    assert list(records) == added
    assert records[1:] == added[1:]
    assert [records.files(n) for n in range(len(records))] == [files_of(r) for r in added]
    kinds = [[type(v) for v in r.fields.values()] for r in records]
    assert kinds == [[type(v) for v in r.fields.values()] for r in added]
    if added:
        changed = Record(added[0].key, added[0].files, other.patient, labels=other.labels)
        records[0] = changed
        assert (records[0], records.files(0)) == (changed, files_of(added[0]))
        records.remove([0])
        assert list(records) == added[1:]
        assert list(records.drained()) == added[1:]
        assert len(records) == 0


def test_a_value_of_a_table_that_is_no_scalar_is_text() -> None:
    records = Records()
    when: Any = datetime.date(2020, 1, 2)
    records.add(Record("a", ("a",), "p", labels={"on": when, "n": 1}), [FileStat("a", 0, 0)])
    assert records[0].labels == {"on": "2020-01-02", "n": 1}
