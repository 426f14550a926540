"""The GPU kit: what `make test-gpu` and the measurements need on a machine with a GPU and little else.

::

    make.py         make the kit's folder: bundles, golden files, wheels, tests; packed, in parts
    device_code.py  remove the device code of other GPUs from wheels
    install.py      in the kit: check and join the parts, unpack them, install the wheels
    run.py          in the kit: run tests and measurements, write JSON

`install.py` and `run.py` are copied into the kit and use the standard library alone.
"""
