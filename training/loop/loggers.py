"""Logs of a training: one CSV file and TensorBoard, with the same values."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from ccr_deploy.core.atomic import write_atomically, writing
from ccr_deploy.core.untrusted import MAX_RESULT_BYTES, read_bytes, reading
from ccr_deploy.errors import CcrDeployError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import Logger

CSV_FILE = ExperimentWriter.NAME_METRICS_FILE
TENSORBOARD_FOLDER = "tensorboard"


def training_loggers(output: Path, first_step: int = 0) -> list[Logger]:
    """Return loggers that write ``metrics.csv`` and the folder ``tensorboard`` in an output folder.

    A resumed training continues both. Values of its first step and later ones, which the training that it
    resumes logged after its last checkpoint, are removed, because it logs them again. A new training removes
    the logs of an earlier one.

    Args:
        output: the folder.
        first_step: optimizer steps before the first one of this training: 0, or those of the checkpoint.

    Raises:
        CcrDeployError: if an earlier ``metrics.csv`` cannot be read, or the folder cannot be written.
    """
    _remove_from(first_step, output)
    return [
        ContinuedCsvLogger(output, name="", version="", flush_logs_every_n_steps=1),
        FlushedTensorBoardLogger(
            output, name="", version=TENSORBOARD_FOLDER, default_hp_metric=False, purge_step=first_step
        ),
    ]


class ContinuedCsvLogger(CSVLogger):
    """Lightning's CSV log, which continues a file that exists; Lightning's own one deletes it."""

    def __init__(self, save_dir: Path, **options: Any) -> None:  # noqa: ANN401 -- those of CSVLogger
        super().__init__(save_dir, **options)
        self._experiment = _ContinuedWriter(log_dir=self.log_dir)  # only the process of rank 0 gets it

    def log_hyperparams(self, params: Any = None) -> None:  # noqa: ANN401
        """Write nothing: the checkpoint has the configuration, and the output folder the recipe."""


class FlushedTensorBoardLogger(TensorBoardLogger):
    """Lightning's TensorBoard log, which has all values up to a checkpoint once that is saved."""

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:  # noqa: ARG002
        """Write what TensorBoard's writer would write up to two minutes later."""
        self.experiment.flush()


class _ContinuedWriter(ExperimentWriter):
    """Continues a file, and replaces it in one step if it gets a new column."""

    def _check_log_dir_exists(self) -> None:
        """Take over the columns of the file."""
        path = Path(self.metrics_file_path)
        self.metrics_keys = list(_read(path)[0]) if path.exists() else []

    def _rewrite_with_new_header(self, fieldnames: Sequence[str]) -> None:
        path = Path(self.metrics_file_path)
        _write(path, fieldnames, _read(path)[1])


@rank_zero_only
def _remove_from(step: int, output: Path) -> None:
    """Remove the values of a step and of later ones."""
    log = output / CSV_FILE
    if log.exists():
        columns, rows = _read(log)
        _write(log, columns, [row for row in rows if int(row["step"]) < step])
    if step == 0:  # otherwise the purge_step of TensorBoard's writer hides them
        with writing(output, CcrDeployError):
            for events in (output / TENSORBOARD_FOLDER).glob("events.out.tfevents.*"):
                events.unlink()


def _read(path: Path) -> tuple[Sequence[str], list[dict[str, str]]]:
    """Return columns and rows of a log; the last line of a killed training may be incomplete."""
    remedy = ": move it away"
    with reading(path, CcrDeployError, remedy):
        text = read_bytes(path, MAX_RESULT_BYTES)
    try:
        reader = csv.DictReader(io.StringIO(text[: text.rfind(b"\n") + 1].decode()))
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise CcrDeployError(f"{path}: not the log of a training ({error}){remedy}") from error
    if not all((row.get("step") or "").isdecimal() for row in rows):
        raise CcrDeployError(f"{path}: not the log of a training (a row has no step){remedy}")
    return reader.fieldnames or [], rows


def _write(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=columns)
    writer.writeheader()
    writer.writerows(rows)
    with writing(path, CcrDeployError):
        write_atomically(path, text.getvalue().encode())
