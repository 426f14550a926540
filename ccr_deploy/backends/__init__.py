"""Graph to engine, and engine to outputs: a registry, a base, and a module or folder for each backend.

::

    registry.py   the backends by name, each imported when it is asked for
    options.py    what the options of every backend have
    base.py       what a backend can do, and what it is given to build from
    runner.py     an engine in memory
    machine.py    which machines a target names, for backends whose targets do

A backend's module imports without its library, so that its options and what holds for all its engines are
known on every machine.
"""
