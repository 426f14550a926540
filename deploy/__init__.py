"""Examples of production deployments, and what makes them; not installed."""
