"""The networks in PyTorch, their configuration and presets, and their checkpoints."""
