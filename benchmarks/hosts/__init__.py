"""Deployments of the package on this machine, for benchmarks and tests: containers, a Triton server."""
