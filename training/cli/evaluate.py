"""``python -m training evaluate``."""

from __future__ import annotations

from pathlib import Path

import click

from ccr_deploy.cli.common import output_options
from ccr_deploy.models.iterations import parse_iterations
from training.cli.common import data_options, output_option, recipe_option
from training.recipe import read_recipe

ROUNDS = 20
"""Rounds of the latency measurement; each runs every T once."""


@click.command(
    epilog="Example: python -m training evaluate --recipe photos-demo --output report trained baseline"
)
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@recipe_option
@data_options
@output_option
@click.option("--iterations", metavar="T,T,…", help="Run with these T too, beside those that were trained.")
@click.option("--workers", type=click.IntRange(min=0), default=0, show_default=True, help="Loader processes.")
@click.option("--compare", "compared", is_flag=True, help="Compare the first folder with each other one.")
@output_options
def evaluate(
    folders: tuple[Path, ...],
    recipe_name: str,
    data: Path | None,
    classes: Path | None,
    output: Path,
    iterations: str | None,
    workers: int,
    compared: bool,
    as_json: bool,
) -> None:
    """Evaluate checkpoints and write a report.

    Measured are accuracy, payload bytes, compute cost and latency, for each T.

    FOLDERS are the --output folders of finetune, baseline or qat; each gets an evaluation.json. Those of
    pretrain are reported as they are.
    """
    from ccr_deploy.cli.common import TerminalProgress, print_lines
    from training.cli.results import print_report
    from training.recipe_data import open_data
    from training.report.report import write_report
    from training.runs import compare_runs, evaluate_run

    recipe = read_recipe(recipe_name)
    wanted = parse_iterations(iterations, "--iterations") if iterations else ()
    images = open_data(recipe, None, data, classes)
    with_progress = TerminalProgress()
    for folder in folders:
        evaluate_run(folder, images, wanted, workers=workers, rounds=ROUNDS, progress=with_progress)
    comparisons = compare_runs(folders) if compared else []
    write_report(output, folders, comparisons)
    print_report(folders, comparisons, as_json=as_json)
    if not as_json:
        print_lines(f"{output / 'report.html'}")
