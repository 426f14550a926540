"""How checkpoints come to be: data, Lightning modules, recipes. Not installed with the package."""
