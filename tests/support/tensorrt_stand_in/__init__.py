"""A stand-in for TensorRT and for the CUDA runtime, which runs on a CPU: no proof of TensorRT.

It tests the logic of this project's runner: which profile runs a batch, padding, parts that overlap, CUDA
graphs, the order in which everything is released, and errors half-way. Whatever TensorRT or a GPU does
otherwise than their documentation says, it does not show.

The parts are separate: `cuda` stands in for the CUDA runtime, `library` for TensorRT. The library launches
its kernels through `kernels`, on the stand-in for CUDA or on a real GPU.
"""
