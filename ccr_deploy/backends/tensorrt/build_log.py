"""The log of a build: what is printed to it, and what is read from it."""

from __future__ import annotations

import logging
import re
import sys

from ccr_deploy.backends.tensorrt.kernel_log import LISTING

_PEAK = re.compile(r"Peak memory usage of TRT CPU/GPU memory allocators: CPU \d+ MiB, GPU (\d+) MiB")


class BuildLog(logging.Handler):
    """Print log messages, and keep the errors, TensorRT's peak memory and the list of kernels.

    Of the messages below DEBUG, only the list of kernels is printed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._errors: list[str] = []
        self.peak_device_memory_mib: float | None = None
        self.kernels: str | None = None
        printed = logging.StreamHandler(sys.stdout)
        printed.addFilter(lambda record: record.levelno >= logging.DEBUG or LISTING in record.getMessage())
        logging.basicConfig(level=logging.NOTSET + 1, handlers=[printed, self], format="%(message)s")

    def begin(self, heading: str) -> None:
        """Print the heading of a compilation, and forget the errors and the kernels of the one before."""
        sys.stdout.write(f"==== {heading} ====\n")
        sys.stdout.flush()
        self._errors.clear()
        self.kernels = None

    @property
    def error_summary(self) -> str | None:
        """The parser's summary, which names the node; otherwise the first error, which causes the others."""
        summaries = [error for error in self._errors if error.startswith("In node")]
        return next(iter(summaries + self._errors), None)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what a message tells."""
        message = record.getMessage()
        if record.levelno == logging.ERROR:
            self._errors.append(_one_line(message))
        if LISTING in message:
            self.kernels = message
        if found := _PEAK.search(message):
            self.peak_device_memory_mib = float(found.group(1))


def _one_line(message: str) -> str:
    """Return a logged error without colours, TensorRT's mark ``[E]`` and line breaks."""
    plain = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", message).split())
    return plain.removeprefix("[E]").lstrip()[:500]
