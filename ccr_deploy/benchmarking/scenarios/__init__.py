"""Scenarios: queries that arrive as MLPerf's LoadGen defines them or as a camera's frames, and a soak."""
