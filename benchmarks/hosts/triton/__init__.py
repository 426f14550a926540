"""A Triton server of one machine, and a backend for it."""
