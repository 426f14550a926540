"""Package a bundle for production servers: Triton model repositories and Kubernetes manifests."""
