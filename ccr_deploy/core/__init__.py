"""Shared basics: records, atomic files, child processes, processor and GPU discovery, metrics."""
