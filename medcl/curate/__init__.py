"""Near-duplicates leave, within an item and across the archive."""
