"""Predictions for new recordings: whole files, or a stream as it arrives."""
