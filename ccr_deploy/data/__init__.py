"""Image files and videos, as arrays."""
