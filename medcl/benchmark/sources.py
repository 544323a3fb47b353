"""Features of a set's rows: of runs, untrained encoders, and the plugin's hand-crafted ones.

::

    OUT/features/<name>.<hash>.npy    (N, D) float32, for each row of the set's table

The hash is of all inputs, so features are computed once, and again if a run has changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medcl import manifest
from medcl import plugin as plugins
from medcl.archive.index import Index
from medcl.benchmark.contract import AT, BESIDE, HANDCRAFTED, KEY, UNTRAINED, Benchmark
from medcl.embeddings.embeddings import embed, features
from medcl.embeddings.relative import relative
from medcl.errors import MedclError
from medcl.io.atomic import replacing
from medcl.plugin import Samples
from medcl.provenance import versions
from medcl.recipe import Recipe, given
from medcl.registry import lookup
from medcl.run import Run, build_encoder, prepared, samples_of

INITIALISATIONS = 3
"""Untrained encoders of each architecture."""


@dataclass(frozen=True)
class Row:
    """A row of the scoreboard: groups of features side by side, see `medcl.nn.feature_groups`.

    Attributes:
        name: as shown.
        variants: of each group its sources; several are initialisations, which draws of labelled
            patients take in turn.
    """

    name: str
    variants: tuple[tuple[str, ...], ...]

    def sources(self, draw: int) -> tuple[str, ...]:
        """The source of each group in a draw."""
        return tuple(group[draw % len(group)] for group in self.variants)


def rows(runs: Sequence[str], untrained: Sequence[str], *, handcrafted: bool) -> list[Row]:
    """All rows: hand-crafted, untrained encoders and runs, each alone and beside hand-crafted.

    Args:
        runs, untrained: names of encoders.
        handcrafted: whether the plugin has such features.
    """
    hand = (HANDCRAFTED,)
    encoders = [
        (f"{UNTRAINED} {name}", tuple(f"{UNTRAINED} {name} {n}" for n in range(INITIALISATIONS)))
        for name in untrained
    ] + [(name, (name,)) for name in runs]
    alone = [Row(name, (variants,)) for name, variants in encoders]
    if not handcrafted:
        return alone
    beside = [Row(f"{name}{BESIDE}", (variants, hand)) for name, variants in encoders]
    return [
        Row(HANDCRAFTED, (hand,)),
        *(r for pair in zip(alone, beside, strict=True) for r in pair),
    ]


class Sources:
    """Features by name, computed when they are first asked for.

    Args:
        benchmark: the set.
        index: of its archive.
        out: the scoreboard's folder.
        runs: by name.
        device: see `medcl.embeddings.embeddings.embed`.
        workers: processes that prepare.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        index: Path,
        out: Path,
        runs: Mapping[str, Run],
        *,
        device: str = "auto",
        workers: int = 1,
    ) -> None:
        self.benchmark, self.index, self.out = benchmark, index, out
        self.runs, self.device, self.workers = dict(runs), device, workers
        self.own = given(benchmark.recipe, benchmark.settings)
        self._samples: dict[str, tuple[Samples, NDArray[np.int64]]] = {}
        self._features: dict[str, NDArray[np.float32]] = {}

    def __call__(self, name: str) -> NDArray[np.float32]:
        """(N, D) of a source."""
        if name not in self._features:
            x = self._stored(name)
            if self.benchmark.relative and name != HANDCRAFTED:
                x = relative(x, self.benchmark.table[KEY].to_list())
            self._features[name] = x
        return self._features[name]

    def recipe(self, name: str) -> Recipe:
        """The recipe of a run, or the set's own for the encoder of that name."""
        return self.runs[name].recipe if name in self.runs else self.own

    def samples(self, recipe: Recipe) -> tuple[Samples, NDArray[np.int64]]:
        """The samples of all rows as the recipe makes them, in the set's own settings, and of each
        the row that it belongs to.

        Raises:
            MedclError: if a row has no sample.
        """
        key = manifest.digest(dict(recipe.prepare), dict(recipe.dataset))
        if key not in self._samples:
            settled = recipe.model_copy(
                update={"dataset": {**recipe.dataset, **self.benchmark.dataset}}
            )
            items = prepared(recipe, self.index, workers=self.workers)
            self._samples[key] = self._of_rows(samples_of(settled, items), recipe)
        return self._samples[key]

    def _of_rows(self, samples: Samples, recipe: Recipe) -> tuple[Samples, NDArray[np.int64]]:
        of_set = self.benchmark
        key_of = dict(Index.open(self.index).paths.select("id", "key").iter_rows())
        rows = of_set.rows(samples, [key_of[item] for item in samples.items])
        count = len(of_set.table)
        if missing := count - len(np.unique(rows[rows >= 0])):
            what = "recordings" if of_set.place is None else "labelled samples"
            raise MedclError(
                f"{recipe.name}: {missing:,} of {count:,} {what} of {of_set.name} give no sample "
                "by this recipe (medcl prepare says why): all rows of the scoreboard "
                "must be of the same ones."
            )
        known = np.flatnonzero(rows >= 0)
        return samples.at(known), rows[known]

    def digest(self, name: str) -> str:
        """A hash of what determines the features of a source."""
        table, settings = self.benchmark.table, dict(self.benchmark.dataset)
        used = [table[column].to_list() for column in (KEY, AT) if column in table.columns]
        parts: list[object] = [self._source(name)[1], *used, settings]
        if self.benchmark.relative and name != HANDCRAFTED:
            parts.append("relative")
        return manifest.digest(*parts)

    def _stored(self, name: str) -> NDArray[np.float32]:
        recipe, _, compute = self._source(name)
        path = self.out / "features" / f"{file_name(name)}.{self.digest(name)[:12]}.npy"
        if path.is_file():
            return np.asarray(np.load(path, allow_pickle=False), np.float32)
        samples, rows = self.samples(recipe)
        x = pooled(compute(samples), rows, len(self.benchmark.table))
        with replacing(path) as temporary, temporary.open("wb") as handle:
            np.save(handle, x)
        return x

    def _source(self, name: str) -> tuple[Recipe, object, Callable[[Samples], NDArray[np.float32]]]:
        """The recipe of a source's samples, what determines its features, and how they are made."""
        if name == HANDCRAFTED:
            recipe = self.own
            plugin = plugins.get(recipe.plugin)
            baseline = lookup(plugin.baselines, HANDCRAFTED, "baseline")
            made_of: object = (HANDCRAFTED, _settings(recipe), versions(recipe.plugin))
            return recipe, made_of, lambda s: features(baseline, s, label=HANDCRAFTED)
        if name in self.runs:
            run = self.runs[name]
            weights = manifest.of_file(run.encoder_file())
            return run.recipe, (weights, _settings(run.recipe)), self._embed(run.encoder, name)
        words = name.split(" ")
        recipe, seed = self.recipe(" ".join(words[1:-1])), int(words[-1])
        made_of = (UNTRAINED, seed, _settings(recipe), recipe.part("encoder").model_dump_json())
        return recipe, made_of, self._embed(lambda: build_encoder(recipe, seed).eval(), name)

    def _embed(
        self, encoder: Callable[[], object], name: str
    ) -> Callable[[Samples], NDArray[np.float32]]:
        return lambda s: embed(encoder(), s, device=self.device, label=name).x  # type: ignore[arg-type]


def pooled(x: NDArray, rows: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """The mean over each row's samples: (N, D) → (count, D); every row has a sample."""
    total = np.zeros((count, x.shape[1]))
    np.add.at(total, rows, x)
    return (total / np.bincount(rows, minlength=count)[:, None]).astype(np.float32)


def file_name(name: str) -> str:
    """A row's or source's name as that of a file."""
    return re.sub(r"[^\w.+-]+", "_", name).strip(".")


def _settings(recipe: Recipe) -> object:
    return dict(recipe.prepare), dict(recipe.dataset)
