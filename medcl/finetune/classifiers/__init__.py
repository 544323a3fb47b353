"""Classifiers for any modality: a head on an encoder. One file each."""
