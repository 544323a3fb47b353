"""medcl prepare --look: the tissue of each slide, for QuPath and as a picture."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from medcl_cli.main import app


def test_tissue_is_drawn_where_it_is(cmu_index, tmp_path):
    command = ["prepare", "pathology/simclr-tiles", "--data", str(cmu_index.path), "--workers", "1"]
    done = CliRunner().invoke(app, [*command, "--look", str(tmp_path / "look"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["drawn"] == 2
    (item,) = cmu_index.items["id"]
    found = json.loads((tmp_path / "look" / item / "tissue.geojson").read_text())
    outer = np.array(found["features"][0]["geometry"]["coordinates"][0])
    assert outer[:, 1].max() > 2900
    picture = np.asarray(Image.open(tmp_path / "look" / item / "tissue.png")).astype(int)
    assert picture.shape == (1024, 766, 3)
    green = (np.abs(picture - (0, 160, 80)).sum(axis=-1) < 10).nonzero()
    scale = 2967 / 1024
    assert abs(green[1].min() * scale - outer[:, 0].min()) < 12
