"""PyTorch with the bundle's weights: the reference that every engine is compared with."""
