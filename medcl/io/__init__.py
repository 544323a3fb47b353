"""Atomic writes, reading with one clear error, parallel maps (processes or Ray), progress."""
