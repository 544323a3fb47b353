"""Index, store, splits, pseudonyms: an archive as tables without identifiers."""
