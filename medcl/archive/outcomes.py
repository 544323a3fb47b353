"""What became of an archive under a recipe: one table for the terminal, the run and the report.

What was rejected when it was indexed or prepared, what was noticed and what was done about it, and
what was not looked at. It is read from the index and its store: nothing is decoded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import polars as pl

from medcl.archive import refused, store
from medcl.archive.ignored import advice
from medcl.archive.index import Index
from medcl.archive.policies import Finding, described, policies
from medcl.plugin import NO_PATIENT, Plugin
from medcl.registry import resolve

Done = Literal["rejected", "mended", "split", "accepted", "ignored"]
ORDER: tuple[Done, ...] = ("rejected", "mended", "split", "accepted", "ignored")
_DONE: dict[str, Done] = {"reject": "rejected", "resample": "mended", "split": "split"}
_NAMED = re.compile(r"([a-z][a-z0-9]*(?:-[a-z0-9]+)*): (.+)", re.DOTALL)


@dataclass(frozen=True)
class Outcome:
    """What was done about one kind of thing.

    Attributes:
        done: rejected, mended (resampled), split, accepted as it is, or ignored.
        name: a reject's code, a finding, or the suffix of files that no plugin part reads.
        count: of items; of what was rejected at indexing or ignored, of files or parts of them.
        about: a reason, or what the finding means.
    """

    done: Done
    name: str
    count: int
    about: str = ""

    def row(self) -> dict[str, Any]:
        """As it is written to a run's files."""
        return asdict(self)


def table(
    index: Index,
    plugin: Plugin,
    spec: Mapping[str, Any],
    prepared: store.Prepared | None = None,
    *,
    named: Collection[str] = (),
) -> list[Outcome]:
    """Every outcome, the rejected first and of each kind the most frequent first.

    Args:
        index: the archive.
        plugin: its modality.
        spec: the recipe's section ``prepare``.
        prepared: the items; None for what the store knows of them in these settings.
        named: items whose patient a table names: that the index knew none is no longer true.
    """
    if prepared is None:
        found, seen = _stored(index, plugin, spec)
    else:
        found, seen = list(prepared.rejects.rows()), Counter(prepared.findings)
    used = index.items.filter(~pl.col("id").is_in([item for item, _, _ in found]))
    seen.update(used["findings"].explode().drop_nulls())
    unnamed = used.filter(pl.col("findings").list.contains(NO_PATIENT))["id"]
    seen -= Counter({NO_PATIENT: len(set(unnamed) & set(named))})
    rows = [
        *_counted((code, reason) for code, reason in index.rejects.select("code", "reason").rows()),
        *_counted(_named(code, reason) for _, code, reason in found),
        *noticed(seen, plugin, spec),
        *(
            Outcome("ignored", suffix, count, advice(suffix, plugin.hints))
            for suffix, count in index.facts.get("ignored_suffixes", {}).items()
        ),
    ]
    return sorted(rows, key=lambda row: (ORDER.index(row.done), -row.count, row.name))


def _stored(
    index: Index, plugin: Plugin, spec: Mapping[str, Any]
) -> tuple[list[tuple[str, str, str]], Counter[str]]:
    """Id, code and reason of what was refused, and how often what was noticed in preparing."""
    keys, held = store.keys_of(index, plugin, spec), store.Store(index.path / "store")
    known = refused.read(held.refused)
    found = [(item, *known[key]) for item, key in keys.items() if key in known]
    whole = [key for key in keys.values() if key not in known and held.state(key) == "whole"]
    return found, Counter(name for key in whole for name in held.meta(key).get("findings", []))


def _counted(found: Iterable[tuple[str, str]]) -> list[Outcome]:
    count: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    for code, reason in sorted(found):
        count[code] += 1
        reasons.setdefault(code, reason)
    return [Outcome("rejected", code, count[code], reasons[code]) for code in count]


def _named(code: str, reason: str) -> tuple[str, str]:
    """Of ``finding: what it means``, both; else the code and all of the reason."""
    match = _NAMED.fullmatch(reason)
    return (match[1], match[2]) if match and code == "unprepared" else (code, reason)


def noticed(counted: Mapping[str, int], plugin: Plugin, spec: Mapping[str, Any]) -> list[Outcome]:
    """The findings of items, with what a recipe's section ``prepare`` does about each."""
    listed: Mapping[str, Finding] = {} if plugin.findings is None else resolve(plugin.findings)
    rules = policies(spec.get("policy") or {}, listed)
    return [
        Outcome(
            _DONE.get(rules.get(name, "accept"), "accepted"), name, count, described(name, listed)
        )
        for name, count in counted.items()
    ]
