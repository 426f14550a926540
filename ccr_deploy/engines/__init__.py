"""Built engines: store, key, sidecar, factory, verdict."""
