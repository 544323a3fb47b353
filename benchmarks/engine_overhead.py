"""Milliseconds a step: medcl's training loop against a bare loop that does the same work.

    OMP_NUM_THREADS=1 python benchmarks/engine_overhead.py

A tiny network on synthetic digits-like samples, so that the loop itself is what shows.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "engine"))

import tiny_engine
import torch

from medcl.engine import optim
from medcl.engine.data import Batches, select
from medcl.engine.pretrain import build, pretrain
from medcl.methods.contract import State, after_step
from medcl.run import load_samples

STEPS = 1500


def main() -> None:
    tiny_engine.install()
    with tempfile.TemporaryDirectory() as folder:
        index = tiny_engine.index(Path(folder))
        settings = {"trainer": {"steps": STEPS, "checkpoint_every": 10_000, "log_every": 10}}
        recipe = tiny_engine.recipe({**settings, "monitor": {"every": 100_000}})
        run = pretrain(recipe, index, Path(folder) / "run")
        ours = run.facts["seconds"] / STEPS * 1000
        selection = select(load_samples(recipe, index), run.split())
        module = build(recipe, selection)
        optimizer, scheduler = optim.build(module.method, recipe.optimizer, STEPS)
        batches = Batches(selection, batch_size=recipe.trainer.batch_size, seed=0, pairs=False)
        generator = torch.Generator()
        start = time.perf_counter()
        for step in range(STEPS):
            _, batch = batches[step]
            x = batch["x"].float()
            views = [module.augment(x, generator), module.augment(x, generator)]
            state = State(step, STEPS)
            loss = module.method.step(views, batch, state)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            after_step(module.method, state)
        bare = (time.perf_counter() - start) / STEPS * 1000
    print(f"medcl {ours:.2f} ms/step, bare loop {bare:.2f} ms/step: {ours / bare:.2f}×")


if __name__ == "__main__":
    main()
