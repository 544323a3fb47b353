"""An index of digits by synthetic writers, and finished runs on it without a pretraining.

The "pretrained" encoder of these runs was fitted with labels, for a few seconds: the tests need one
that is known to be better than a random one, and do not judge how it came about.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn

from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.archive.index import Index, build
from medcl.archive.splits import split
from medcl.private import remember
from medcl.run import Run, build_encoder, load_samples

WRITERS, EACH = 12, 60
RECIPE = {
    "name": "digits",
    "about": "Handwritten digits.",
    "plugin": "toy",
    "encoder": {"name": "small"},
    "method": {"name": "simclr", "positives": "instance"},
    "probe": {"task": "digit", "fractions": [0.01, 0.3, 1.0], "bootstraps": 200},
}


def make_index(folder: Path) -> Path:
    images, classes = load_digits(return_X_y=True)
    rows = np.column_stack([classes, images]).astype(int)
    archive = folder / "archive"
    archive.mkdir()
    for writer in range(WRITERS):
        part = rows[writer * EACH : (writer + 1) * EACH]
        np.savetxt(archive / f"writer_{writer:02d}.csv", part, fmt="%d", delimiter=",")
    (archive / "blank.csv").write_text("")
    key = folder / "key"  # a fixed one: who is tested on follows from the keyed hashes
    key.write_bytes(b"a test's key, of no secret")
    build(archive, folder / "index", plugins.get("toy"), key_file=key)
    return folder / "index"


def make_run(index: Path, out: Path, **changes: object) -> Run:
    recipe = recipes.parse({**RECIPE, **changes})
    samples = load_samples(recipe, index)
    parts = split(Index.open(index).items, **recipe.split.drawn())
    train = np.flatnonzero([parts[p] == "train" for p in samples.patients])
    x = torch.from_numpy(samples.read(train)["x"])
    y = torch.from_numpy(np.asarray(samples.labels["digit"])[train])

    encoder = build_encoder(recipe, recipe.seed)
    torch.manual_seed(0)
    head = nn.Linear(encoder.width, 10)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(encoder(x)), y).backward()
        optimizer.step()

    out.mkdir(parents=True)
    (out / "recipe.yaml").write_text(recipes.dump(recipe), encoding="utf-8")
    remember(out, data=index)
    facts = {"finished": True, "command": "toy", "versions": {"medcl": "test"}}
    (out / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    frame = pl.DataFrame({"patient": list(parts), "split": list(parts.values())})
    frame.write_parquet(out / "split.parquet")
    save_file(encoder.state_dict(), out / "encoder.safetensors")
    return Run.open(out)
