"""The short form of the drills: one moment of each kind and verb. `long.py` has many."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import drill
import numpy as np
import pytest
from drill import Count, Whole

pytestmark = pytest.mark.slow
SHORT = ("index", "prepare", "pretrain", "embed", "probe", "finetune", "predict")
"""Verbs of the short form: what they read back and write differs most."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    multiprocessing.set_forkserver_preload(drill.PRELOAD)
    verbs = {name: drill.VERBS[name] for name in SHORT}
    return drill.whole(tmp_path_factory.mktemp("drills"), verbs)


def check(count: Count) -> None:
    assert (count.wrong, count.residue) == ([], [])
    assert count.right == count.n == 1


def moment(whole: Whole, verb: str, share: float) -> int:
    return max(1, round(share * whole.touches[verb]))


@pytest.mark.parametrize("verb", ["index", "prepare", "pretrain", "finetune", "predict"])
def test_kill_9_costs_nothing_but_time(whole: Whole, verb: str, tmp_path: Path) -> None:
    check(drill.broken_off(whole, verb, "kill", moment(whole, verb, 0.6), tmp_path))


@pytest.mark.parametrize("verb", ["prepare", "pretrain", "probe"])
def test_sigterm_ends_in_order(whole: Whole, verb: str, tmp_path: Path) -> None:
    check(drill.broken_off(whole, verb, "term", moment(whole, verb, 0.4), tmp_path))


def test_a_stopped_process_goes_on(whole: Whole, tmp_path: Path) -> None:
    check(drill.broken_off(whole, "pretrain", "stop", moment(whole, "pretrain", 0.5), tmp_path))


@pytest.mark.parametrize("verb", ["index", "pretrain", "embed"])
def test_a_full_disk_is_one_sentence(whole: Whole, verb: str, tmp_path: Path) -> None:
    check(drill.full_disk(whole, verb, 0.4, tmp_path))


@pytest.mark.parametrize("verb", ["prepare", "pretrain", "probe", "predict"])
def test_a_flipped_bit_is_never_silent(whole: Whole, verb: str, tmp_path: Path) -> None:
    check(drill.flipped(whole, verb, np.random.default_rng(len(verb)), tmp_path))


@pytest.mark.parametrize("verb", ["prepare", "embed"])
def test_an_archive_that_is_not_mounted(whole: Whole, verb: str, tmp_path: Path) -> None:
    check(drill.unmounted(whole, verb, "empty", tmp_path))


def test_moved_apart_they_are_found_where_the_options_say(whole: Whole, tmp_path: Path) -> None:
    home = drill.copy(whole.before["embed"], tmp_path / "home")
    (home / "archive").rename(home / "recordings")
    (home / "idx").rename(home / "index")
    shutil.rmtree(home / "index" / "store")  # so that the recordings are read
    verb = drill.VERBS["embed"]
    ended = drill.run(home, f"{verb.words} --data index --archive recordings")
    assert ended.code == 0, ended.said
    assert drill.result(verb, home, ended) == whole.results["embed"]
    refused = drill.run(home, f"{verb.words} --archive nowhere")
    assert refused.code == 2
    assert "is not an index" in refused.said
