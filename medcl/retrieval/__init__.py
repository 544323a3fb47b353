"""Search, queries across modalities, anomaly scores."""
