"""Not run: mypy checks here that each registered part has the type that `medcl.contract` asks for.

`tests/test_contract_types.py` keeps it complete, and shows that mypy refuses a wrong part.
"""

from __future__ import annotations

import medcl.classifiers.contrast
import medcl.classifiers.core_tuning
import medcl.classifiers.full
import medcl.classifiers.linear
import medcl.classifiers.lora
import medcl.classifiers.lp_ft
import medcl.classifiers.semi_supervised
import medcl.methods.byol
import medcl.methods.can
import medcl.methods.clip
import medcl.methods.deepcluster
import medcl.methods.dino
import medcl.methods.harmonised
import medcl.methods.mae
import medcl.methods.moco
import medcl.methods.participant
import medcl.methods.redundancy
import medcl.methods.semi_supervised
import medcl.methods.simclr
import medcl.methods.site_adapt
import medcl.methods.spark
import medcl.methods.supcon
import medcl.methods.swav
import medcl.methods.tip
from medcl import contract

_method_factory: list[contract.MethodFactory] = [
    medcl.methods.simclr.SimCLR,
    medcl.methods.moco.MoCoV2,
    medcl.methods.moco.MoCoV3,
    medcl.methods.participant.Participant,
    medcl.methods.supcon.SupCon,
    medcl.methods.semi_supervised.SemiSupervised,
    medcl.methods.swav.SwAV,
    medcl.methods.deepcluster.DeepClusterV2,
    medcl.methods.byol.BYOL,
    medcl.methods.byol.SimSiam,
    medcl.methods.redundancy.VICReg,
    medcl.methods.redundancy.BarlowTwins,
    medcl.methods.dino.DINO,
    medcl.methods.mae.MAE,
    medcl.methods.spark.SparK,
    medcl.methods.can.CAN,
    medcl.methods.clip.TwoTower,
    medcl.methods.tip.TIP,
    medcl.methods.site_adapt.SiteAdapt,
    medcl.methods.harmonised.Harmonised,
]
_encoder_classifier_factory: list[contract.EncoderClassifierFactory] = [
    medcl.classifiers.linear.Linear,
    medcl.classifiers.lp_ft.ProbeThenTune,
    medcl.classifiers.full.Full,
    medcl.classifiers.lora.LoRA,
    medcl.classifiers.contrast.Contrast,
    medcl.classifiers.semi_supervised.SemiSupervised,
    medcl.classifiers.core_tuning.CoreTuning,
]
