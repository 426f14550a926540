"""Errors of TensorRT at run time, reported by TensorRT-RTX itself: that part of it needs no GPU."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ccr_deploy.backends.tensorrt.plan import deserialize, error_recorder, quiet_logger
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from types import ModuleType


@pytest.fixture(scope="module")
def library() -> ModuleType:
    return pytest.importorskip("tensorrt_rtx", reason="the extra rtx is not installed")


def test_a_rejected_plan_is_reported_once_and_not_printed(
    library: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    path = Path("encoder.plan")
    with pytest.raises(EngineError) as caught:
        deserialize(library, b"not a plan" * 20, path, error_recorder(library), allow_host_code=False)
    message = str(caught.value)
    assert message.startswith(f"encoder.plan: TensorRT {library.__version__} cannot load it (")
    assert "magicTag" in message  # TensorRT's reason
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")


def test_the_logger_runs_no_python_code_and_is_shared(library: ModuleType) -> None:
    logger = quiet_logger(library)
    assert type(logger) is library.Logger
    assert logger is quiet_logger(library)


def test_the_standard_output_gets_no_message(library: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    """TensorRT's logger prints to the standard output, where it would damage JSON."""
    for severity in (library.Logger.VERBOSE, library.Logger.WARNING, library.Logger.ERROR):
        quiet_logger(library).log(severity, "a message")
    assert capfd.readouterr() == ("", "")


def test_a_recorder_summarizes_the_errors_since_it_was_cleared(library: ModuleType) -> None:
    errors = error_recorder(library)
    assert errors.summary == "no reason given"
    code = library.ErrorCodeTRT.FAILED_EXECUTION
    for description in ("out of\n  memory", "cannot enqueue", "cannot enqueue"):
        assert errors.report_error(code, description)
    assert errors.summary == "out of memory; cannot enqueue"
    assert (errors.num_errors(), errors.get_error_code(0), errors.get_error_desc(1)) == (
        3,
        code,
        "cannot enqueue",
    )
    errors.clear()
    assert (errors.summary, errors.num_errors()) == ("no reason given", 0)


def test_recorders_of_two_runtimes_do_not_mix(library: ModuleType) -> None:
    one, other = error_recorder(library), error_recorder(library)
    with pytest.raises(EngineError):
        deserialize(library, b"not a plan" * 20, Path("encoder.plan"), one, allow_host_code=False)
    assert one.num_errors() > 0
    assert other.num_errors() == 0


def test_a_recorder_takes_errors_of_several_threads(library: ModuleType) -> None:
    errors: Any = error_recorder(library)
    code = library.ErrorCodeTRT.INTERNAL_ERROR

    def report(number: int) -> None:
        for _ in range(100):
            errors.report_error(code, f"error {number}")
            assert f"error {number}" in errors.summary

    threads = [threading.Thread(target=report, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors.num_errors() == 400
