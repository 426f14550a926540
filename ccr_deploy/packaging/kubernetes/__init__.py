"""Kubernetes manifests of a bundle's server: a plain Deployment, and KServe's InferenceService."""
