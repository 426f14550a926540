"""Package a bundle as a Triton model repository."""
