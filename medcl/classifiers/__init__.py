"""What is trained with labels, for any modality: heads on an encoder. One file each.

`CLASSIFIERS` are those that any modality can use (`medcl.finetune.build`).
"""

from medcl.catalogue import CLASSIFIERS

__all__ = ["CLASSIFIERS"]
