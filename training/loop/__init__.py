"""How a module is trained: loaders, Lightning trainer, saved state, progress and logs."""
