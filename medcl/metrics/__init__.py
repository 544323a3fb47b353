"""Measures under weights, intervals over patients, and how figures are called and shown."""
