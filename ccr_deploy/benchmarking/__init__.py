"""Interleaved benchmarks: each candidate runs in its own process; raw samples are compared."""
