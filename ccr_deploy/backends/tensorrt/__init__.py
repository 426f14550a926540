"""TensorRT and TensorRT-RTX: two backends, for two flavours of one library.

::

    options.py        the options of the two flavours
    backend.py        the two backends: device binding, building and loading
    flavour.py        the Python packages and their supported versions
    builder.py        the parent's side of a build: start the process, report progress, end it
    build_process.py  the build itself, with Polygraphy's loaders, in a separate process
    build_log.py      the log of a build, and what is read from it
    plan.py           deserialize a plan; TensorRT's errors
    runner.py         an engine in memory: buffers, a stream, a CUDA graph for each batch size
    inspector.py      the kernels of an engine, from TensorRT's engine inspector
    tactics.py        the data types in the names of kernels
    reproduce.py      commands of trtexec and Polygraphy that build and run the same engine
"""
