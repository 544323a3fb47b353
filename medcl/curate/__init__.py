"""Removal of near-duplicates, within an item and across the archive."""
