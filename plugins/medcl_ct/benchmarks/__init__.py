"""Public sets of grey images for ``medcl benchmark``: their parts and problems."""
