"""A Triton server on this machine, and a backend for it."""
