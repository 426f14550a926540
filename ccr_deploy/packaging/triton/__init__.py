"""A Triton model repository."""
