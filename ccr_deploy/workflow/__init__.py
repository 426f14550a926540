"""What spans stages: each function here is what one command does."""
