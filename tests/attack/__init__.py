"""Attacks that a maintainer can run again, bounded and on loopback; see `docs/reference/reliability.md`."""
