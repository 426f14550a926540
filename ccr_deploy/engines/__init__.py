"""Built engines: store, key, sidecar, factory, and verdict on a lower precision."""
