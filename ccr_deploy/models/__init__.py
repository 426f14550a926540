"""The networks in PyTorch, their configurations, presets and checkpoints."""
