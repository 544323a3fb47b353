"""1D encoders: (B, C, T) → (B, width), any length, any number of channels."""
