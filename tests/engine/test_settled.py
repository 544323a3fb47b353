"""``batch_size: auto`` takes what fits, ``scale`` what the archive supports; resumed runs too."""

from __future__ import annotations

import pytest
import tiny_engine
import yaml

from medcl import recipe as recipes
from medcl.engine import dry_step, settled
from medcl.engine.dry_step import Cost
from medcl.engine.pretrain import pretrain
from medcl.errors import UsageError
from medcl.recipe import AUTO
from medcl.run import Run

STEPS = {"steps": 4, "checkpoint_every": 2, "log_every": 1}


def test_auto_is_a_batch_size_and_is_written_as_the_word() -> None:
    recipe = tiny_engine.recipe({"trainer": {"batch_size": "auto"}})
    assert recipe.trainer.batch_size == AUTO
    assert yaml.safe_load(recipes.dump(recipe))["trainer"]["batch_size"] == "auto"
    with pytest.raises(UsageError, match="greater than 1, or auto"):
        tiny_engine.recipe({"trainer": {"batch_size": 1}})


@pytest.mark.parametrize(
    ("memory", "batch", "accumulate"),
    [(10**12, 256, 3), (30 * 10**9, 128, 6), (8 * 10**9, 32, 24)],
)
def test_the_batch_is_halved_until_it_fits(
    memory: int, batch: int, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = Cost(fixed=10**9, each=10**8, seconds=0.01)
    monkeypatch.setattr(dry_step, "measured", lambda module: cost)
    recipe = tiny_engine.recipe({"trainer": {"batch_size": "auto", "accumulate": 3}})
    taken, note = settled.batch_that_fits(recipe, object(), 10_000, memory)  # type: ignore[arg-type]
    assert (taken.trainer.batch_size, taken.trainer.accumulate) == (batch, accumulate)
    assert cost.peak(batch) <= settled.SHARE * memory
    assert batch == 256 or cost.peak(2 * batch) > settled.SHARE * memory
    assert f"batch_size is {batch}" in note
    assert f"accumulate {accumulate}" in note
    with pytest.raises(UsageError, match="smaller encoder"):
        settled.batch_that_fits(recipe, object(), 10_000, 10**9)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_records_what_was_taken_and_resumes_with_it(index, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(dry_step, "free", lambda: 800_000)
    asked = tiny_engine.recipe({"trainer": {**STEPS, "batch_size": "auto", "scale": True}})
    run = pretrain(asked, index, tmp_path / "run")
    taken = Run.open(tmp_path / "run").recipe.trainer
    assert taken == run.recipe.trainer
    assert 2 <= taken.batch_size < 256
    assert taken.batch_size * taken.accumulate >= 256
    assert not taken.scale
    assert any("trainer.batch_size is" in note for note in run.facts["warnings"])
    monkeypatch.setattr(dry_step, "free", lambda: 10**12)  # would take more, but the run has begun
    assert pretrain(asked, index, tmp_path / "run").recipe == run.recipe
    with pytest.raises(UsageError, match=r"holds a run|differs|other"):
        pretrain(tiny_engine.recipe({"trainer": STEPS}), index, tmp_path / "run")


def test_rates_follow_the_step_and_queues_and_warm_up_the_archive() -> None:
    def scaled(samples: int, name: str = "adamw", **method: object) -> recipes.Recipe:
        recipe = tiny_engine.recipe(
            {
                "optimizer": {"name": name, "lr": 1e-3, "warmup": 0.1},
                "trainer": {"steps": 1000, "batch_size": 512, "accumulate": 2},
                "method": {"name": "tiny_momentum", **method},
            }
        )
        return settled.scaled(recipe, samples)[0]

    assert scaled(10**6).optimizer.lr == pytest.approx(2e-3)  # √(1,024 / 256)
    assert scaled(10**6, "lars").optimizer.lr == pytest.approx(4e-3)
    assert scaled(10**6).optimizer.warmup == 0.1
    assert scaled(4096).optimizer.warmup == pytest.approx(10 * 4 / 1000)  # 4 steps an epoch
    assert scaled(10_000, queue=65536).part("method").arguments["queue"] == 2048
    assert scaled(100, queue=65536).part("method").arguments["queue"] == 1024  # one step
    assert scaled(10**6, queue=4096).part("method").arguments["queue"] == 4096


def test_prototypes_are_at_most_one_for_fifty_samples() -> None:
    swav = recipes.Named.model_validate({"name": "swav", "prototypes": 500, "queue": 0})
    recipe = tiny_engine.recipe().model_copy(update={"method": swav})
    fewer, notes = settled.scaled(recipe, 5000)
    assert fewer.part("method").arguments["prototypes"] == 100
    assert any("method.prototypes is 100" in note for note in notes)
    assert not fewer.trainer.scale
