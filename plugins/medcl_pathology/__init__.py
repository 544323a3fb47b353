"""Whole-slide pathology for medcl: slides to tissue, tiles, features and bags."""
