"""Run by an interpreter with nnU-Net: loads an exported folder as its trainer and predictor do.

Prints the largest difference between nnU-Net's network and the scores that medcl wrote.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

torch.set_num_threads(1)
for name in ("raw", "preprocessed", "results"):  # nnU-Net writes its logs there
    os.environ[f"nnUNet_{name}"] = tempfile.mkdtemp()
COMPILE, DATA = "nnUNet_compile", "nnUNet_preprocessed"
os.environ[COMPILE] = "f"
folder, x, scores = (Path(a) for a in sys.argv[1:4])

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: E402
from nnunetv2.preprocessing.normalization.default_normalization_schemes import (  # noqa: E402
    CTNormalization,
)
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights  # noqa: E402
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: E402

plans = json.loads((folder / "plans.json").read_text())
dataset = json.loads((folder / "dataset.json").read_text())
checkpoint = str(folder / "fold_0" / "checkpoint_final.pth")

data = Path(os.environ[DATA], plans["dataset_name"], "nnUNetPlans_3d_fullres")
data.mkdir(parents=True)
(data / "case.npz").touch()  # the trainer looks which kind of file lies there


def trainer() -> nnUNetTrainer:
    return nnUNetTrainer(
        {**plans, "continue_training": False}, "3d_fullres", 0, dataset, torch.device("cpu")
    )


loaded = trainer()
loaded.load_checkpoint(checkpoint)
loaded.set_deep_supervision_enabled(False)
properties = plans["foreground_intensity_properties_per_channel"]["0"]
image = CTNormalization(False, properties).run(np.load(x)[0, 0])
with torch.inference_mode():
    got = loaded.network.eval()(torch.from_numpy(image)[None, None]).numpy()
print("trainer", float(np.abs(got - np.load(scores)).max()))

fresh = trainer()
fresh.initialize()
load_pretrained_weights(fresh.network, checkpoint)
print("pretrained", "ok")

predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
predictor.initialize_from_trained_model_folder(str(folder), (0,))
print("predictor", len(predictor.list_of_parameters))
