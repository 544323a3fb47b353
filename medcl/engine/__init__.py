"""Pretraining: sampling, optimizers, Lightning, checkpoints, online evaluation."""
