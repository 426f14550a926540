"""Reading of image files and videos as arrays."""
