"""Published methods by name: one file each, one line in `medcl.catalogue`."""

from medcl.catalogue import METHODS

__all__ = ["METHODS"]
