"""What is asked of or done to any ONNX graph."""
