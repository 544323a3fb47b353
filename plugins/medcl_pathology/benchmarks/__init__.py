"""Public sets of tiles and bags for ``medcl benchmark``: their folds and problems."""
