"""Interleaved benchmarks: each candidate in its own process, compared by raw samples."""
