"""Scripts that compare this project with its alternatives, and their results."""
