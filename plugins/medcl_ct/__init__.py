"""Computed tomography for medcl. Reserved: the plugin is not written yet, and not announced."""
