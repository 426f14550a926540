"""CONTRIBUTING.md: its diagram and tables match the code, and its recipes are followed as written."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from ccr_deploy.backends.registry import BACKENDS
from ccr_deploy.core.precisions import PRECISIONS, PrecisionRow
from ccr_deploy.core.stages import CHAIN_STAGES, SCHEDULES
from ccr_deploy.targets.schema import load_target, resolve
from ccr_deploy.verification import gates
from scripts.draw_layers import DRAWING, WORDS, layers, svg
from tests.support.cli_runner import run
from tests.support.documents import make_targets, missing_links

if TYPE_CHECKING:
    import pytest

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.models.checkpoint import Checkpoint

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "CONTRIBUTING.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")


def section(heading: str) -> str:
    """Return the text below a heading, up to the next one of the same or a higher level."""
    level = heading.partition(" ")[0]
    body = TEXT.split(f"\n{heading}\n", 1)[1]
    return re.split(rf"^#{{1,{len(level)}}} ", body, maxsplit=1, flags=re.MULTILINE)[0]


def code(recipe: str, introduction: str) -> str:
    """Return the first block of a recipe below a line that holds the introduction."""
    after = section(f"### {recipe}").split(introduction, 1)[1]
    return re.search(r"```\w+\n(.*?)```", after, flags=re.DOTALL)[1]


def executed(text: str, name: str, **known: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(known)
    exec(compile(text, name, "exec"), vars(module))  # noqa: S102 -- our own document
    return module


def value(text: str, **known: Any) -> Any:
    return eval(text.strip().rstrip(","), dict(known))  # noqa: S307 -- our own document


def test_the_diagram_is_drawn_from_the_contract() -> None:
    assert DRAWING.read_text(encoding="utf-8") == svg()
    assert list(WORDS) == [names[0] for names in layers()]


def test_links_lead_to_files() -> None:
    assert missing_links(DOCUMENT) == []


def test_make_targets_exist() -> None:
    assert {*re.findall(r"`make ([a-z-]+)`", TEXT)} <= make_targets()


def test_modules_that_are_run_exist() -> None:
    for name in re.findall(r"python -m ([\w.]+)", TEXT):
        assert (ROOT / f"{name.replace('.', '/')}.py").is_file(), name


def test_every_folder_of_the_repository_is_listed() -> None:
    listed = set(re.findall(r"^\| `(\w+)/` \|", section("## Layout"), flags=re.MULTILINE))
    built = {"build", "dist", "shared"}
    there = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] not in "._"}
    assert listed == there - built


def test_files_of_the_recipes_exist_or_are_new() -> None:
    for recipe in re.split(r"^### ", section("## Recipes"), flags=re.MULTILINE)[1:]:
        for name in re.findall(r"^\| `([\w./-]+)` \|", recipe, flags=re.MULTILINE):
            assert "NAME" in name or (ROOT / name).exists(), name


def test_commands_of_the_recipes_have_their_options() -> None:
    commands = re.findall(r"^\$ ccr-deploy (.*)$", TEXT, flags=re.MULTILINE)
    assert len(commands) > 5
    for command in commands:
        name, *words = command.split()
        shown = run(name, "--help").stdout
        new = {"--fp8"}
        assert all(word in shown or word in new for word in words if word.startswith("--")), command


def test_a_target_as_in_the_recipe_is_built(tiny_bundle: Bundle, tmp_path: Path) -> None:
    from ccr_deploy.engines.factory import EngineFactory
    from ccr_deploy.engines.store import EngineStore

    path = tmp_path / "cpu-one-thread.toml"
    path.write_text(code("Add a target", "`engines/cpu-one-thread.toml`"), encoding="utf-8")
    assert resolve(load_target(str(path)), "encoder").precision == "int8"
    factory = EngineFactory(tiny_bundle, str(path), EngineStore(tmp_path / "engines"))
    assert factory.build("classifier")[1]
    with factory.load(factory.find("classifier")) as runner:
        assert [spec.name for spec in runner.inputs] == ["code"]


def test_a_backend_as_in_the_recipe_builds_and_runs_both_stages(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ccr_deploy.engines.factory import EngineFactory
    from ccr_deploy.engines.store import EngineStore

    entry = value("{" + code("Add a backend", "In `BACKENDS`").strip() + "}")
    ((name, location),) = entry.items()
    module_name = location.partition(":")[0]
    written = code("Add a backend", "`ccr_deploy/backends/onnx_reference.py`:")
    monkeypatch.setitem(sys.modules, module_name, executed(written, module_name))
    monkeypatch.setitem(BACKENDS, name, location)
    path = tmp_path / f"{name}.toml"
    path.write_text(code("Add a backend", f"`engines/{name}.toml`"), encoding="utf-8")

    def run_chain(target: str) -> tuple[np.ndarray, np.ndarray]:
        factory = EngineFactory(tiny_bundle, target, EngineStore(tmp_path / "engines"))
        for stage in CHAIN_STAGES:
            factory.build(stage)
        with (
            factory.load(factory.find("encoder")) as encoder,
            factory.load(factory.find("classifier")) as classifier,
        ):
            codes = encoder.infer({"image": images})["code"]
            return codes, classifier.infer({"code": codes})["logits"]

    contract = tiny_bundle.manifest.contract
    shape = (2, contract.image_height, contract.image_width, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    (codes, logits), (expected_codes, expected_logits) = run_chain(str(path)), run_chain("cpu")
    np.testing.assert_array_equal(codes, expected_codes)
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-3, atol=1e-5)


def test_a_gate_as_in_the_recipe_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = value(code("Add a gate", "In `CODE_GATES`"), **vars(gates))
    flips = np.array([2, 1])
    call = code("Add a gate", "In `code_parity`").strip()
    measured = value(f"dict({call})", flips=flips)
    field = code("Add a gate", "In `CodeParity`").strip()
    assert [*measured] == [field.partition(":")[0]]
    monkeypatch.setattr(gates, "CODE_GATES", (gate,))
    for limit, passed in ((2, True), (1, False)):
        limits = gates.GateLimits({gate.name: limit})
        parity = SimpleNamespace(level="engine", against="pytorch", **measured)
        (result,) = gates.check_gates({"engine": limits}, [parity], [], [], [])
        assert (result.found, result.passed) == (2, passed)
    assert set(gate.limits) == set(PRECISIONS)


def test_a_precision_as_in_the_recipe_converts_a_graph(tiny_bundle: Bundle) -> None:
    import onnx_ir as ir

    row = value(code("Add a precision", "Add the row"), PrecisionRow=PrecisionRow)
    converter = executed(code("Add a precision", "`ccr_deploy/quantization/fp8.py`"), "fp8")
    entries = code("Add a precision", "In `CONVERTERS`").partition(" = ")[2]
    converters = value(entries, to_fp16=None, to_fp8=converter.to_fp8)
    fp32 = ir.load(tiny_bundle.file(tiny_bundle.graph("classifier", "fp32", None).file))
    converted = converters[row.graph](fp32, {})

    def weights(model: ir.Model) -> list[np.ndarray]:
        return [node.inputs[1].const_value.numpy() for node in model.graph if node.op_type == "Conv"]

    for before, after in zip(weights(fp32), weights(converted), strict=True):
        assert (before != after).any()
        # Half a unit in the last place of three bits of mantissa, and of the smallest value of a channel.
        np.testing.assert_allclose(after, before, rtol=1 / 16, atol=np.abs(before).max() / 2**15)


def test_a_schedule_as_in_the_recipe_encodes_bit_by_bit_as_the_others(tiny_checkpoint: Checkpoint) -> None:
    import torch

    from ccr_deploy.export import unroll
    from ccr_deploy.models.checkpoint import build_model

    known = {name: item for name, item in vars(unroll).items() if not name.startswith("__")}
    written = code("Add an unroll schedule", "In `ccr_deploy/export/unroll.py`")
    module = executed(f"from __future__ import annotations\n{written}", "wavefront", **known)
    entry = value("{" + code("Add an unroll schedule", "In `UNROLLED`").strip() + "}", **vars(module))
    names = re.findall(r'"([\w-]+)"', code("Add an unroll schedule", "In `ccr_deploy/core/stages.py`"))
    assert set(names) == {*SCHEDULES, *entry}
    (kind,) = entry.values()
    encoder = build_model(tiny_checkpoint).encoder
    config = tiny_checkpoint.config
    image = torch.randn(
        2, 3, config.image_height, config.image_width, generator=torch.Generator().manual_seed(0)
    )
    with torch.inference_mode():
        for iterations in (1, 2, 5):
            expected = unroll.unroll(encoder, iterations, "iteration-major")(image)
            found = kind(encoder, iterations).eval()(image)
            assert torch.equal(found >= 0, expected >= 0)
            torch.testing.assert_close(found, expected)
