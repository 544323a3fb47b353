"""Training with labels: classifiers, losses, folds, and what came out.

`CLASSIFIERS` are those that any modality can use: heads on an encoder (`medcl.finetune.build`).
"""

from medcl.registry import Lazy

CLASSIFIERS: dict[str, Lazy] = {
    "linear": "medcl.finetune.classifiers.linear:Linear",
    "lp-ft": "medcl.finetune.classifiers.lp_ft:ProbeThenTune",
    "full": "medcl.finetune.classifiers.full:Full",
    "lora": "medcl.finetune.classifiers.lora:LoRA",
    "contrast": "medcl.finetune.classifiers.contrast:Contrast",
    "semi-supervised": "medcl.finetune.classifiers.semi_supervised:SemiSupervised",
    "core-tuning": "medcl.finetune.classifiers.core_tuning:CoreTuning",
}
