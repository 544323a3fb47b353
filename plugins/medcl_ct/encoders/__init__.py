"""Encoders of CT slices and volumes: HU in, (B, width) out."""
