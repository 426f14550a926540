"""Attacks that a maintainer can run again, bounded and on loopback; `docs/reliability.md` has the results."""
