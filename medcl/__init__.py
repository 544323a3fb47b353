"""medcl: contrastive representation learning for medical and sensor data."""

__version__ = "0.1.0"
