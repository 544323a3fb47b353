"""Classifiers for any modality: heads on an encoder, trained with labels. One file each.

`CLASSIFIERS` lists them (`medcl.finetune.build`).
"""

from medcl.catalogue import CLASSIFIERS

__all__ = ["CLASSIFIERS"]
