"""Compare the engines of this project with what a user would run instead: ``python -m benchmarks.peers``."""
