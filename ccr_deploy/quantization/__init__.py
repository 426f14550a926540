"""ONNX graph to ONNX graph: FP16, activation ranges, INT8, what each layer's quantization costs."""
