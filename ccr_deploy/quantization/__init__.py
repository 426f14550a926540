"""Convert ONNX graphs to FP16 and INT8: activation ranges, calibration tables, sensitivity of layers."""
