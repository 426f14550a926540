"""Progress of real, tiny trainings, on a terminal and in a pipe."""

from __future__ import annotations

import io
import itertools
import re
from typing import TYPE_CHECKING, Any

import lightning
import pytest
import torch
from rich.console import Console
from torch.utils.data import DataLoader

from training.loop.progress import DataWait, StepState, TrainingProgress, training_bar
from training.loop.rates import Rate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

FIXED = {
    "accelerator": "cpu",
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")


class Line(lightning.LightningModule):
    """A straight line, trained on numbers."""

    def __init__(self, broken_step: int | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.broken_step = broken_step

    def training_step(self, batch: Tensor) -> Tensor:
        if self.global_step == self.broken_step:
            raise KeyboardInterrupt
        loss = self.layer(batch).square().mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Tensor) -> None:
        self.log("validation", self.layer(batch).mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class StepClock:
    """A clock on which a second passes at each reading."""

    def __init__(self) -> None:
        self._seconds = itertools.count()

    def __call__(self) -> float:
        return float(next(self._seconds))


def numbers(count: int) -> DataLoader[Tensor]:
    return DataLoader(torch.linspace(0, 1, count).unsqueeze(1), batch_size=2)


def progress(console: Console, clock: Any = None) -> tuple[TrainingProgress, DataWait]:
    clock = clock or StepClock()
    wait = DataWait(clock)
    return TrainingProgress("finetune", 2, wait, console, clock), wait


def train(console: Console, module: Line | None = None, **options: Any) -> TrainingProgress:
    callback, wait = progress(console)
    settings = {**FIXED, "logger": False, "max_epochs": 2, "profiler": wait, **options}
    trainer = lightning.Trainer(callbacks=[callback], **settings)
    trainer.fit(module or Line(), numbers(40), numbers(4))
    return callback


def lines(text: str) -> Iterator[str]:
    return (line for line in text.split("\n") if line)


def test_a_pipe_gets_plain_lines_with_all_figures() -> None:
    file = io.StringIO()
    train(Console(file=file, force_terminal=False, width=80))
    found = list(lines(file.getvalue()))
    rate = r", [\d,]+ images/s, \d+ % waiting for data, .+ left"
    pattern = rf"finetune: step \d+ of 40, loss [\d.e+-]+, learning rate 0\.01({rate})?"
    assert [line for line in found if not re.fullmatch(pattern, line)] == []
    assert re.fullmatch(pattern, found[-1])[1]  # type: ignore[index]
    assert "step 40 of 40" in found[-1]
    assert found[-1].endswith("0 s left")
    assert 2 <= len(found) < 40
    assert all(character.isprintable() for line in found for character in line)


def test_waiting_is_the_time_between_asking_for_a_batch_and_having_it() -> None:
    """Each step reads the clock twice for its batch and once at its end: a third of the time is waiting."""
    found = train(Console(file=io.StringIO()), max_epochs=1, limit_val_batches=0).overall
    assert found
    assert found.waiting_percent == pytest.approx(100 / 3)
    assert found.images_per_second == pytest.approx(2 / 3)


def test_validation_is_not_counted() -> None:
    console = Console(file=io.StringIO())
    with_validation = train(console, val_check_interval=1).overall
    assert with_validation
    # A second passes before the first reading in a pause, and one after it.
    assert with_validation.images_per_second == pytest.approx(2 / 4, rel=0.05)


def test_accumulated_batches_are_one_step() -> None:
    file = io.StringIO()
    train(Console(file=file), accumulate_grad_batches=2, limit_val_batches=0)
    assert "step 20 of 20" in file.getvalue()


def test_rates_are_logged(tmp_path: Any) -> None:
    logger = lightning.pytorch.loggers.CSVLogger(tmp_path, name="", version="")
    train(Console(file=io.StringIO()), logger=logger, log_every_n_steps=1)
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert {"images_per_second", "data_wait_percent", "loss"} <= set(header.split(","))
    assert len(rows) >= 40


def test_a_terminal_gets_a_bar_of_the_whole_training() -> None:
    file = io.StringIO()
    train(Console(file=file, force_terminal=True, width=100))
    text = file.getvalue()
    assert "100 %" in text
    assert "images/s" in text
    assert "finetune:" not in text


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_fits_on_one_line(width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, color_system=None)
    train(console)
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", file.getvalue())
    last = [line for line in re.split(r"[\r\n]+", shown) if "100 %" in line][-1]
    assert len(last) <= width
    assert last.rstrip().endswith("left")


def test_the_bar_of_a_long_training_fits_80_columns() -> None:
    state = StepState(123_456, 1_000_000, 6.912345, 0.001, Rate(12_345, 12), 300_000)
    file = io.StringIO()
    with training_bar(Console(file=file, force_terminal=True, width=80, color_system=None)) as bar:
        bar.add_task("baseline", total=state.total_steps, completed=state.step, short=state.short)
    last = re.split(r"[\r\n]+", re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", file.getvalue()).rstrip())[-1]
    assert re.fullmatch(r"baseline \S+ +12 % loss 6.912, 12,345 images/s, 12 % waiting, 3 d 11 h left", last)


def test_ctrl_c_closes_the_bar() -> None:
    file = io.StringIO()
    with pytest.raises(BaseException):  # noqa: B017, PT011 -- Lightning turns Ctrl-C into an exit
        train(Console(file=file, force_terminal=True, width=100), Line(broken_step=5))
    assert file.getvalue().rstrip("\n").endswith("\x1b[?25h")  # the cursor is shown again


def test_a_state_without_rate_shows_what_is_known() -> None:
    state = StepState(3, 1000, None, 0.002, None, None)
    assert state.line == "step 3 of 1,000, learning rate 0.002"
    assert state.short == ""
    known = StepState(3, 1000, 1.5, 0.002, Rate(512.4, 3.2), 90)
    assert known.line == (
        "step 3 of 1,000, loss 1.5, learning rate 0.002, 512 images/s, 3 % waiting for data, 2 min left"
    )
    assert known.short == "loss 1.5, 512 images/s, 3 % waiting, 2 min left"
