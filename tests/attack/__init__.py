"""Attacks that a maintainer can run again; what they found is in ``docs/reliability.md``."""
