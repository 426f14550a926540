"""ONNX Runtime, on a CPU and on a GPU by its CUDA provider."""
