"""Names of samples come back from a table as they were."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from medcl import strings
from medcl.embeddings import names

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)


@given(st.lists(texts, max_size=9))
def test_columns_and_back(some: list[str]) -> None:
    column = pl.Series(some, dtype=pl.String)
    for held in (names.distinct(column), names.repeated(column), some, strings.packed(some)):
        assert list(held) == some
        assert names.column(held).to_list() == some
        assert names.column(held).dtype == pl.String
    one, other = names.repeated(column), strings.encoded(some)
    assert one.names.tolist() == other.names.tolist()
    assert one.codes.tolist() == other.codes.tolist()
