"""The images, built and run by podman as production builds and runs them: ``make test-containers``."""
