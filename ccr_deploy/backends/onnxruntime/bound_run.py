"""Runs of an ONNX Runtime session whose inputs and outputs stay on a device, by its IO binding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ccr_deploy.backends.runner import Arrays


def bound_run(
    session: Any,  # noqa: ANN401 -- the library has no types
    feeds: Arrays,
    outputs: Sequence[str],
    device: Literal["cuda", "cpu"],
) -> Callable[[], None]:
    """Copy inputs to a device, and return a function that runs a session on them and waits for the outputs.

    Args:
        session: the session.
        feeds: inputs by name.
        outputs: names of the outputs, which the function leaves on the device.
        device: the device of the session's provider.
    """
    import onnxruntime

    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0))
    for name in outputs:
        binding.bind_output(name, device)
    binding.synchronize_inputs()

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run
