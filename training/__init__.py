"""Training of checkpoints: data, Lightning modules and recipes. Not installed with the package."""
