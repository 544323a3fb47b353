"""Names of medcl's own methods and classifiers → their modules.

It imports none of them, so that `medcl.recipe` checks recipes without importing their packages. A
plugin adds its own (``Plugin.methods``, ``Plugin.classifiers``).
"""

from __future__ import annotations

from medcl.registry import Lazy

METHODS: dict[str, Lazy] = {
    "simclr": "medcl.methods.simclr:SimCLR",
    "moco-v2": "medcl.methods.moco:MoCoV2",
    "moco-v3": "medcl.methods.moco:MoCoV3",
    "participant": "medcl.methods.participant:Participant",
    "supcon": "medcl.methods.supcon:SupCon",
    "semi-supervised": "medcl.methods.semi_supervised:SemiSupervised",
    "swav": "medcl.methods.swav:SwAV",
    "deepcluster-v2": "medcl.methods.deepcluster:DeepClusterV2",
    "byol": "medcl.methods.byol:BYOL",
    "simsiam": "medcl.methods.byol:SimSiam",
    "vicreg": "medcl.methods.redundancy:VICReg",
    "barlow-twins": "medcl.methods.redundancy:BarlowTwins",
    "lejepa": "medcl.methods.lejepa:LeJEPA",
    "visreg": "medcl.methods.lejepa:VISReg",
    "dino": "medcl.methods.dino:DINO",
    "dinov2": "medcl.methods.dinov2:DINOv2",
    "msn": "medcl.methods.msn:MSN",
    "data2vec": "medcl.methods.data2vec:Data2Vec",
    "cpc": "medcl.methods.cpc:CPC",
    "i-jepa": "medcl.methods.i_jepa:IJEPA",
    "distil": "medcl.methods.distil:Distil",
    "mae": "medcl.methods.mae:MAE",
    "spark": "medcl.methods.spark:SparK",
    "mae-unet": "medcl.methods.mae_unet:UNetMAE",
    "volume-fusion": "medcl.methods.volume_fusion:VolumeFusion",
    "voco": "medcl.methods.voco:VoCo",
    "can": "medcl.methods.can:CAN",
    "clip": "medcl.methods.clip:TwoTower",
    "tip": "medcl.methods.tip:TIP",
    "site-adapt": "medcl.methods.site_adapt:SiteAdapt",
    "unicon": "medcl.methods.unicon:UniCon",
    "debcse": "medcl.methods.debcse:DebCSE",
    "ctvis": "medcl.methods.ctvis:CTVIS",
    "noisy-labels": "medcl.methods.noisy_labels:NoisyLabels",
    "harmonised": "medcl.methods.harmonised:Harmonised",
}
"""Pretraining methods, one published method per file."""

CLASSIFIERS: dict[str, Lazy] = {
    "linear": "medcl.classifiers.linear:Linear",
    "linear-handcrafted": "medcl.classifiers.linear_handcrafted:LinearHandcrafted",
    "lp-ft": "medcl.classifiers.lp_ft:ProbeThenTune",
    "full": "medcl.classifiers.full:Full",
    "lora": "medcl.classifiers.lora:LoRA",
    "contrast": "medcl.classifiers.contrast:Contrast",
    "semi-supervised": "medcl.classifiers.semi_supervised:SemiSupervised",
    "tip": "medcl.classifiers.tip:TIPClassifier",
    "core-tuning": "medcl.classifiers.core_tuning:CoreTuning",
    "unet": "medcl.classifiers.unet:UNet",
    "voxel-linear": "medcl.classifiers.unet:VoxelLinear",
}
"""Classifiers for any modality: heads on an encoder."""
