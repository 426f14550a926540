"""Write the stable surface as one JSON file: options of commands, exit statuses, tests, golden results.

::

    python -m scripts.inventory write tests/golden/inventory.json
    python -m scripts.inventory compare tests/golden/inventory.json other.json [--renames FILE]

The golden results come from checkpoints with weights of a fixed seed, by the commands alone: graph hashes,
calibration tables, the code bits and logits of every graph in ONNX Runtime, payloads, verification. Bits and
logits are those of one processor and one set of packages, so two inventories are compared on one machine.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

import ccr_deploy.cli.command_line
import ccr_deploy.errors

CROP = 48
CLASSES = 16
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field")
BUILT = (("cpu", "fp32"), ("cpu", "fp16"), ("cpu", "int8"), ("cpu-openvino", "int8"))


def cli_options() -> dict[str, Any]:
    """Return every command's arguments and options, with their defaults."""
    group = ccr_deploy.cli.cli
    return {name: [_parameter(entry) for entry in command.params] for name, command in group.commands.items()}


def _parameter(parameter: click.Parameter) -> dict[str, Any]:
    described = parameter.to_info_dict()
    kept = ("name", "opts", "secondary_opts", "type", "required", "nargs", "multiple", "default", "is_flag")
    return json.loads(json.dumps({key: described.get(key) for key in kept}, default=str))


def exit_statuses() -> dict[str, int]:
    """Return each error's exit status, and those of signals."""
    base = ccr_deploy.errors.CcrDeployError
    kinds = {name: kind for name, kind in vars(ccr_deploy.errors).items() if isinstance(kind, type)}
    errors = {name: kind.exit_status for name, kind in kinds.items() if issubclass(kind, base)}
    return {
        **errors,
        "interrupted": ccr_deploy.cli.command_line.INTERRUPTED,
        "terminated": int(ccr_deploy.cli.command_line.TERMINATED),
    }


def test_ids() -> list[str]:
    """Return all tests, by their pytest ids."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", ""]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sorted(line for line in listed.splitlines() if "::" in line)


def golden(folder: Path) -> dict[str, Any]:
    """Return the results of the commands for checkpoints of a fixed seed."""
    checkpoint, images, calibration = folder / "demo.pt", folder / "images", folder / "calibration"
    _write_state_dict("demo", checkpoint)
    _write_crops(images, seed=0)
    _write_crops(calibration, seed=1)
    bundle = folder / "bundle"
    schedules = ["--schedule", "iteration-major", "--schedule", "layer-major", "--schedule", "plain"]
    _run("export", "--checkpoint", checkpoint, "--preset", "demo", "--images", images, *schedules, bundle)
    table = folder / "ranges.json"
    ranges: list[str | Path] = [
        "--images",
        calibration,
        "--samples",
        "64",
        "--held-out",
        images,
        "--save-table",
        table,
    ]
    _run("calibrate", bundle, *ranges)
    manifest = json.loads((bundle / "manifest.json").read_text())
    graphs = manifest["graphs"]
    return {
        "demo": {
            "predicted": _rounded(manifest["calibration"]["accuracies"]),
            "graphs": [_graph(graph) for graph in graphs],
            "table": json.loads(table.read_text())["stages"],
            "outputs": _outputs(bundle, graphs, images),
            "verified": {
                f"{target} {precision}": _verified(bundle, target, precision, images, folder / "engines")
                for target, precision in BUILT
            },
        },
        "ccr-layer1": _exported_alone("ccr-layer1", folder / "layer1"),
    }


def _exported_alone(preset: str, folder: Path) -> list[dict[str, Any]]:
    folder.mkdir()
    _write_state_dict(preset, folder / "checkpoint.pt")
    _run(
        "export", "--checkpoint", folder / "checkpoint.pt", "--preset", preset, "--no-fp16", folder / "bundle"
    )
    return [_graph(entry) for entry in json.loads((folder / "bundle/manifest.json").read_text())["graphs"]]


def _graph(record: dict[str, Any]) -> dict[str, Any]:
    names = ("stage", "precision", "schedule", "graph_hash", "convolutions", "quantized_convolutions")
    return {name: record[name] for name in names}


def _outputs(bundle: Path, graphs: list[dict[str, Any]], images: Path) -> dict[str, Any]:
    """Return ONNX Runtime's outputs of each graph: SHA-256 of the bytes, and the first logits."""
    import onnxruntime
    from PIL import Image

    batch = np.stack([np.asarray(Image.open(path)) for path in sorted(images.rglob("*.png"))])
    codes = None
    found: dict[str, Any] = {}
    for graph in sorted(graphs, key=lambda entry: entry["stage"] != "encoder"):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        # Without optimizations: some of them are wrong for INT8, and the backends disable those.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(
            str(bundle / graph["file"]["name"]), options, ["CPUExecutionProvider"]
        )
        name = " ".join(filter(None, (graph["stage"], graph["precision"], graph["schedule"])))
        if graph["stage"] == "encoder":
            (output,) = session.run(None, {"image": batch})
            codes = output if codes is None else codes
            found[name] = {"code_sha256": hashlib.sha256(output.tobytes()).hexdigest()}
        elif graph["stage"] == "classifier":
            (output,) = session.run(None, {"code": codes})
            found[name] = {
                "logits_sha256": hashlib.sha256(output.tobytes()).hexdigest(),
                "first": [round(float(value), 5) for value in output[0]],
            }
    return found


def _verified(bundle: Path, target: str, precision: str, images: Path, store: Path) -> Any:  # noqa: ANN401
    """Return the results of `verify --json` for two engines, without values that differ between runs."""
    chosen: list[str | Path] = ["--target", target, "--engines", store]
    _run("build-engine", bundle, *chosen, f"--{precision}", "--no-timing")
    # The classifier is random, so that gates may fail: only their results are recorded.
    text = _run("verify", bundle, *chosen, "--images", images, "--json", statuses=(0, 1))
    report = json.loads(text)
    names = ("gates", "comparisons", "accuracies", "image_count")
    return {name: _rounded(report[name]) for name in names if name in report}


def _rounded(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(entry) for name, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list) else value


def _write_state_dict(preset: str, path: Path) -> None:
    import torch

    from ccr_deploy.models.checkpoint import untrained_checkpoint
    from ccr_deploy.models.presets import preset as preset_named

    torch.save(dict(untrained_checkpoint(preset_named(preset), seed=0).state_dict), path)


def _write_crops(folder: Path, seed: int) -> None:
    from PIL import Image
    from skimage import data

    random = np.random.default_rng(seed)
    for label in range(CLASSES):
        name = PHOTOS[label % len(PHOTOS)]
        photo = getattr(data, name)()[..., :3]
        (folder / f"{label:02}-{name}").mkdir(parents=True)
        for number in range(8):
            row, column = (int(random.integers(0, size - CROP)) for size in photo.shape[:2])
            crop = Image.fromarray(photo[row : row + CROP, column : column + CROP])
            crop.save(folder / f"{label:02}-{name}" / f"{number:02}.png")


def _run(*arguments: str | Path, statuses: tuple[int, ...] = (0,)) -> str:
    command = [sys.executable, "-m", "ccr_deploy", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in statuses:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def differences(before: Any, after: Any, where: str = "") -> list[str]:  # noqa: ANN401
    """Return the differences of two inventories, one line each."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = dict.fromkeys((*before, *after))
        return [
            line
            for name in names
            for line in differences(before.get(name), after.get(name), f"{where}/{name}")
        ]
    if isinstance(before, list) and isinstance(after, list) and where == "/tests":
        gone = [f"{where}: gone: {name}" for name in sorted(set(before) - set(after))]
        return gone + [f"{where}: new: {name}" for name in sorted(set(after) - set(before))]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [line for number, pair in pairs for line in differences(*pair, f"{where}/{number}")]
    return [] if before == after else [f"{where}: {before!r:.120} -> {after!r:.120}"]


def renamed(inventory: dict[str, Any], renames: list[tuple[str, str]]) -> dict[str, Any]:
    """Rename tests as later versions have renamed them, by regular expressions in order."""
    tests = inventory["tests"]
    for pattern, name in renames:
        tests = [re.sub(pattern, name, test) for test in tests]
    return {**inventory, "tests": sorted(tests)}


@click.group()
def main() -> None:
    """Write the stable surface to a file, or compare two such files."""


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
def write(path: Path) -> None:
    """Write the inventory of this checkout; takes about three minutes."""
    with tempfile.TemporaryDirectory(prefix="ccr-deploy-inventory-") as folder:
        inventory = {
            "options": cli_options(),
            "exit_statuses": exit_statuses(),
            "golden": golden(Path(folder)),
            "tests": test_ids(),
        }
    path.write_text(json.dumps(inventory, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


@main.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--renames", type=click.Path(path_type=Path), help="Lines of a pattern, a tab and a name.")
def compare(before: Path, after: Path, renames: Path | None) -> None:
    """Print the differences of two inventories; the exit status is 1 if there are any."""
    lines = [line for line in (renames.read_text().splitlines() if renames else []) if line.strip()]
    pairs = [tuple(line.split("\t")) for line in lines if not line.startswith("#")]
    old = renamed(json.loads(before.read_text()), [(pattern, name) for pattern, name in pairs])
    found = differences(old, json.loads(after.read_text()))
    for line in found:
        print(line)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
