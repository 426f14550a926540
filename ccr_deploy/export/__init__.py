"""Checkpoint to ONNX: unroll schedules, byte borders, graph clean-up, the bundle."""
