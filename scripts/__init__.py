"""Scripts for `make` and for releases; not part of the package."""
