"""Training with labels: folds, studies, and what came out."""
