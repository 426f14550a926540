"""`verify` records the engines that it verified; other commands can refuse all others."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from ccr_deploy.bundle.reader import Bundle, sha256_of
from ccr_deploy.core.records import to_json
from ccr_deploy.engines.sidecar import read_sidecar, sidecar_path
from ccr_deploy.engines.store import Engine, EngineStore
from ccr_deploy.errors import EngineError
from ccr_deploy.runtime import Classifier, Encoder
from ccr_deploy.workflow.build import build_engines
from tests.support.cli_runner import run

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.engines.sidecar import Sidecar, Verification

GATE_FAILED, WRONG_USAGE, BROKE = 1, 2, 3


@pytest.fixture
def engines(built_store: EngineStore, tmp_path: Path) -> EngineStore:
    """A store whose engines were not verified."""
    copy = tmp_path / "engines"
    shutil.copytree(built_store.path, copy)
    for path in copy.glob("*/*.onnx"):
        unverified = replace(read_sidecar(path), verification=None)
        sidecar_path(path).write_text(to_json(unverified))
    return EngineStore(copy)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(3).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def verified(bundle: Bundle, store: EngineStore, *options: object):
    return run("verify", bundle.path, "--engines", store.path, "--target", "cpu", *options)


def engine_of(store: EngineStore, stage: str) -> Path:
    (path,) = store.path.glob(f"*/{stage}.fp32.onnx")
    return path


def sidecar_of(store: EngineStore, stage: str = "encoder") -> Sidecar:
    return read_sidecar(engine_of(store, stage))


def verification_of(store: EngineStore, stage: str = "encoder") -> Verification:
    found = sidecar_of(store, stage).verification
    assert found is not None
    return found


def refusal(bundle: Bundle, store: EngineStore) -> str:
    with pytest.raises(EngineError) as caught:
        Encoder.load(bundle, "cpu", store, require_verified=True)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_engine_of_the_target_gets_a_record(tiny_bundle: Bundle, engines: EngineStore) -> None:
    outcome = verified(tiny_bundle, engines, "--json")
    assert (outcome.status, outcome.stderr) == (0, "")
    report = json.loads(outcome.stdout)
    for stage in ("encoder", "classifier", "baseline"):
        found = verification_of(engines, stage)
        assert found.engine_sha256 == sha256_of(engine_of(engines, stage))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found.verified_at)
        assert (found.passed, found.reference, found.changed_gates) == (True, "pytorch", ())
        assert (found.images, found.image_count) == (report["images"], report["image_count"])
        assert found.images_sha256 == report["images_sha256"]
        assert found.contract_id == tiny_bundle.manifest.contract_id


def test_the_rest_of_the_sidecar_stays(tiny_bundle: Bundle, engines: EngineStore) -> None:
    before = sidecar_of(engines)
    verified(tiny_bundle, engines)
    assert replace(sidecar_of(engines), verification=None) == before


def test_a_golden_file_is_recorded_with_its_hash(
    tiny_bundle: Bundle, engines: EngineStore, tmp_path: Path
) -> None:
    golden = tmp_path / "tiny.golden"
    assert run("verify", tiny_bundle.path, "--export-golden", golden, "--engines", tmp_path / "e").status == 0
    assert verified(tiny_bundle, engines, "--golden", golden).status == 0
    found = verification_of(engines)
    assert (found.reference, found.images_sha256) == ("golden", sha256_of(golden))
    Encoder.load(tiny_bundle, "cpu", engines, require_verified=True)


def test_limits_that_were_changed_in_a_golden_file_are_recorded(
    tiny_bundle: Bundle, engines: EngineStore, tmp_path: Path
) -> None:
    golden = tmp_path / "loose.golden"
    loosened = ("--gate", "min_cosine=0.5", "--gate", "max-flipped-percent=50")
    where = ("--engines", tmp_path / "e")
    assert run("verify", tiny_bundle.path, "--export-golden", golden, *where, *loosened).status == 0
    assert verified(tiny_bundle, engines, "--golden", golden).status == 0
    assert verification_of(engines).changed_gates == ("min-cosine=0.5", "max-flipped-percent=50")
    assert verified(tiny_bundle, engines, "--golden", golden, "--gate", "min-cosine=0.25").status == 0
    assert verification_of(engines).changed_gates == ("min-cosine=0.25", "max-flipped-percent=50")


def test_inspect_shows_the_record_and_changed_gates(tiny_bundle: Bundle, engines: EngineStore) -> None:
    path = engine_of(engines, "encoder")
    assert "verification: none" in run("inspect", path).stdout
    verified(tiny_bundle, engines, "--gate", "max_flipped_percent=inf")
    shown = run("inspect", path).stdout
    assert "verification: passed at " in shown
    assert "CHANGED GATES: max-flipped-percent=inf" in shown


def test_commands_refuse_engines_that_were_not_verified(
    tiny_bundle: Bundle, engines: EngineStore, photo: Path, tmp_path: Path
) -> None:
    common = ("--engines", engines.path, "--target", "cpu", "--require-verified")
    commands = (
        ("encode", photo, "-o", tmp_path / "photo.ccr", "--bundle", tiny_bundle.path, *common),
        ("classify", photo, "--bundle", tiny_bundle.path, *common),
    )
    for command in commands:
        outcome = run(*command)
        assert outcome.status == BROKE
        command_line = f"ccr-deploy verify {tiny_bundle.path} --target cpu --engines {engines.path}, on a"
        assert f"was not verified: run {command_line}" in outcome.error_line
    assert not (tmp_path / "photo.ccr").exists()


def test_the_server_does_not_start_with_engines_that_were_not_verified(
    tiny_bundle: Bundle, engines: EngineStore
) -> None:
    # In a process of its own, because KServe's protocol can be loaded only once in a process.
    where = ("--engines", engines.path, "--target", "cpu", "--http-port", "0", "--grpc-port", "0")
    command = [sys.executable, "-m", "ccr_deploy", "serve", tiny_bundle.path, *where, "--require-verified"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert refused.returncode == BROKE
    assert "was not verified: run ccr-deploy verify" in refused.stderr
    assert "listening" not in refused.stdout


def test_verified_engines_are_used(
    tiny_bundle: Bundle, engines: EngineStore, photo: Path, tmp_path: Path
) -> None:
    verified(tiny_bundle, engines)
    common = ("--bundle", tiny_bundle.path, "--engines", engines.path, "--target", "cpu")
    for command in (("encode", photo, "-o", tmp_path / "photo.ccr"), ("classify", photo)):
        outcome = run(*command, *common, "--require-verified")
        assert (outcome.status, outcome.stderr) == (0, "")


def test_a_failed_verification_is_recorded_and_refused(tiny_bundle: Bundle, engines: EngineStore) -> None:
    assert verified(tiny_bundle, engines, "--gate", "min-cosine=2").status == GATE_FAILED
    assert verification_of(engines).passed is False
    assert "failed its verification at " in refusal(tiny_bundle, engines)
    assert "FAILED at " in run("inspect", engine_of(engines, "encoder")).stdout


def test_a_rebuilt_engine_is_no_longer_verified(tiny_bundle: Bundle, engines: EngineStore) -> None:
    verified(tiny_bundle, engines)
    Classifier.load(tiny_bundle, "cpu", engines, require_verified=True)
    build_engines(tiny_bundle, "cpu", engines, ["encoder"], rebuild=True)
    assert sidecar_of(engines).verification is None
    assert "was not verified" in refusal(tiny_bundle, engines)


def test_a_record_of_other_bytes_or_another_model_is_refused_with_the_field(
    tiny_bundle: Bundle, engines: EngineStore
) -> None:
    verified(tiny_bundle, engines)
    path, genuine = sidecar_path(engine_of(engines, "encoder")), sidecar_of(engines)
    for field in ("engine_sha256", "contract_id", "weights_sha256"):
        changed = replace(verification_of(engines), **{field: "0" * 64})
        path.write_text(to_json(replace(genuine, verification=changed)))
        assert f"was verified with {field} 000000000000…" in refusal(tiny_bundle, engines)
        path.write_text(to_json(genuine))


def test_changed_bytes_are_refused(tiny_bundle: Bundle, engines: EngineStore) -> None:
    verified(tiny_bundle, engines)
    with engine_of(engines, "encoder").open("ab") as file:
        file.write(b"\0")
    assert "damaged or changed" in refusal(tiny_bundle, engines)


def test_a_record_that_cannot_be_written_is_one_warning(
    tiny_bundle: Bundle, engines: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a read-only store; root may write to any folder, so the system call is refused."""

    def refused(*_: object, **__: object) -> tuple[int, str]:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkstemp", refused)
    outcome = verified(tiny_bundle, engines)
    assert (outcome.status, outcome.stderr) == (0, "")
    (line,) = [line for line in outcome.stdout.splitlines() if line.startswith("warning: ")]
    assert "the verification is not recorded" in line
    assert "cannot be written (Read-only file system)" in line
    assert sidecar_of(engines).verification is None


def test_two_commands_that_write_a_sidecar_lose_nothing(tiny_bundle: Bundle, engines: EngineStore) -> None:
    verified(tiny_bundle, engines)
    record = verification_of(engines)
    records = [replace(record, images=f"set {number}") for number in range(40)]
    engine = engines.find(sidecar_of(engines).key, ".onnx")
    assert engine is not None
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda entry: engines.add_verification(engine, entry), records))
    assert verification_of(engines) in records


def test_an_engine_that_was_built_again_meanwhile_keeps_its_own_sidecar(
    tiny_bundle: Bundle, engines: EngineStore
) -> None:
    verified(tiny_bundle, engines)
    engine = engines.find(sidecar_of(engines).key, ".onnx")
    assert engine is not None
    stale = Engine(engine.path, replace(engine.sidecar, engine_sha256="0" * 64))
    # =replace(engine.sidecar, engine_sha256="0" * 64))
    with pytest.raises(EngineError, match="damaged or changed"):
        engines.add_verification(stale, verification_of(engines))
    assert sidecar_of(engines) == engine.sidecar


def test_triton_refuses_graphs_if_verified_engines_are_required(
    tiny_bundle: Bundle, engines: EngineStore, tmp_path: Path
) -> None:
    where = ("--engines", engines.path, "--target", "cpu", "--output", tmp_path / "repository")
    outcome = run("package", tiny_bundle.path, "--format", "triton", *where, "--require-verified")
    assert outcome.status == WRONG_USAGE
    assert "choose a target for TensorRT" in outcome.error_line
    assert not (tmp_path / "repository").exists()
