"""Queries and passes for any ONNX graph: canonical hash, convolutions, clean-up."""
