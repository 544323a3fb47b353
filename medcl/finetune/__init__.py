"""Training with labels: classifiers, losses, folds, and what came out.

`CLASSIFIERS` are those that any modality can use: heads on an encoder (`medcl.finetune.build`).
"""

from medcl.registry import Lazy

CLASSIFIERS: dict[str, Lazy] = {
    "linear": "medcl.classifiers.linear:Linear",
    "lp-ft": "medcl.classifiers.lp_ft:ProbeThenTune",
    "full": "medcl.classifiers.full:Full",
    "lora": "medcl.classifiers.lora:LoRA",
    "contrast": "medcl.classifiers.contrast:Contrast",
    "semi-supervised": "medcl.classifiers.semi_supervised:SemiSupervised",
    "core-tuning": "medcl.classifiers.core_tuning:CoreTuning",
}
