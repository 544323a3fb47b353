"""The frozen-feature probe: encoder against untrained and hand-crafted features."""
