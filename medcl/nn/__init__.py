"""Modality-free parts: heads, momentum copies, queues, ViT and ResNet, gathering over ranks."""
