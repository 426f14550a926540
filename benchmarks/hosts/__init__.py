"""Where the package is deployed on this machine, for benchmarks and tests: containers, a Triton server."""
