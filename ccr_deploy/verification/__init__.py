"""Parity of graphs and engines with the PyTorch checkpoint: runs, measures, gates."""
