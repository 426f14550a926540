"""A bundle's server on Kubernetes: as a plain Deployment, and as KServe's InferenceService."""
