"""The images, built and run with podman as in production: ``make test-containers``."""
