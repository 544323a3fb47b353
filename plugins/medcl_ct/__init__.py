"""Computed tomography for medcl: a hospital's archive to encoders of slices and volumes."""
