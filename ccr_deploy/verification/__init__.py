"""Proof that graph and engine answer as the checkpoint did: stages, measures, gates."""
