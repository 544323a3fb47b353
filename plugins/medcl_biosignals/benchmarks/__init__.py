"""Public sets of signals for ``medcl benchmark``, one file each: their folds and problems."""
