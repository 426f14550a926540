"""Examples of production deployments, and the script that writes them; not installed."""
