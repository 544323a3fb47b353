"""2D encoders of RGB tiles."""
