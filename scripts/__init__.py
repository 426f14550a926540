"""What `make` and a release run beside the package."""
