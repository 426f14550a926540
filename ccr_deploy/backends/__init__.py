"""Build engines from graphs and run them: a registry, a base class, and a module or folder for each backend.

::

    registry.py   the backends by name, each imported on first use
    options.py    the base of every backend's options
    base.py       the interface of a backend, and the inputs of a build
    runner.py     an engine in memory
    machine.py    the machines that a target names

A backend's module can be imported without its library, so that its options and the properties of its engines
are known on every machine.
"""
