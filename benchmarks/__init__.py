"""Scripts that measure this project against what a user would use instead, and their results."""
