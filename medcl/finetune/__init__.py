"""Training with labels: classifiers, losses, folds, and what came out.

`CLASSIFIERS` are those that any modality can use: heads on an encoder (`medcl.finetune.build`).
"""

from medcl.catalogue import CLASSIFIERS

__all__ = ["CLASSIFIERS"]
