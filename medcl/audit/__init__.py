"""Whether a study can be trusted: leakage, subgroups, corruptions, comparisons."""
