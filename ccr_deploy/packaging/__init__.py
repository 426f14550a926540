"""A bundle's engines as what production servers load."""
