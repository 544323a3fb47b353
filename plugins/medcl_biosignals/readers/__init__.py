"""One file format a module: `contract` says what a reader is, `choose` which one reads a file."""
