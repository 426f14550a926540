"""TensorRT and TensorRT-RTX: one backend, two flavours of one library.

::

    options.py        how the two flavours build
    backend.py        what a target's engines are bound to; the way into a build and into memory
    flavour.py        which library and which of its versions
    builder.py        the owner's side of a build: starts its process, follows it, ends it
    build_process.py  the build itself, by Polygraphy's loaders, in a process of its own
    plan.py           a plan's bytes to an engine
    runner.py         an engine in memory: buffers, a stream, a CUDA graph for each batch size
    inspector.py      in which precision an engine executes its convolutions
"""
