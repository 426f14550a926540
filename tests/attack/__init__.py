"""Attacks that a maintainer can run again, bounded and on loopback; `docs/reference/reliability.md` has the results."""
