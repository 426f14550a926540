"""ONNX Runtime on a CPU, and on a GPU with its CUDA provider."""
