"""Embeddings of samples, neighbours among them, and linear models on them."""
