"""Every plugin's encoders tell real inputs apart before training; signals: test_signal_encoders."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch import Tensor

from medcl.engine.monitors import spread
from medcl.nn.inference import for_inference
from medcl.registry import resolve
from medcl_ct.plugin import plugin as ct
from medcl_pathology.encoders.models import RELEASED
from medcl_pathology.plugin import plugin as pathology

ROOT = Path(__file__).parents[1]
NO_NETWORK = {"huggingface", "huggingface2d", "timm", *RELEASED}  # of a folder


def told_apart(place: str, x: Tensor) -> float:
    torch.manual_seed(0)
    encoder = resolve(place)().eval()
    with torch.inference_mode():
        z = encoder(x)
        ready = for_inference(encoder)(x)  # what embeds and predicts
        torch.testing.assert_close(ready, z, rtol=1e-3, atol=1e-4 * float(z.abs().max()))
        return float(spread(torch.nn.functional.normalize(z, dim=1)))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ct.encoders.keys() - NO_NETWORK))
def test_of_ct(name: str) -> None:
    if name == "swin_unetr3d":
        pytest.importorskip("einops")
    volume = nibabel.Nifti1Image.from_filename(ROOT / "plugins/medcl_ct/sample/abdomen_ct.nii.gz")
    hu = torch.from_numpy(np.asarray(volume.dataobj, dtype=np.float32))
    if name.endswith("3d"):
        x = torch.stack([hu[a : a + 64, b : b + 64, 32:96] for a in (10, 58) for b in (2,)])
    else:
        x = torch.stack([hu[:96, :96, z] for z in (5, 20, 40, 60)])
    assert told_apart(ct.encoders[name], x[:, None]) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(pathology.encoders.keys() - NO_NETWORK))
def test_of_pathology(name: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    pixels = tifffile.imread(ROOT / "tests/pathology/data/cmu-1-small-region.svs")
    slide = torch.from_numpy(pixels).permute(2, 0, 1)
    x = torch.stack(
        [slide[:, a : a + 224, b : b + 224] for a in (0, 900, 1800) for b in (0, 900, 1800)]
    )
    assert told_apart(pathology.encoders[name], x.float() / 255) > 0.01
