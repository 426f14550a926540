"""Data sets for training and testing."""
