"""The engine store finds engines by their key, and refuses damaged ones."""

import json
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from ccr_deploy.backends.build_facts import BuildFacts, log_path
from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeOptions
from ccr_deploy.backends.registry import backend_class
from ccr_deploy.core.private_folder import sharing_problem
from ccr_deploy.core.records import to_builtins, to_json
from ccr_deploy.engines.sidecar import EngineKey, EngineOrigin, sidecar_path
from ccr_deploy.engines.store import ENVIRONMENT_VARIABLE, Engine, EngineStore
from ccr_deploy.errors import EngineError
from ccr_deploy.targets.resolved import ResolvedTarget

KEY = EngineKey(
    stage="encoder",
    precision="fp32",
    schedule="layer-major",
    source_hash="ab" * 32,
    graph_sha256="ef" * 32,
    backend="onnxruntime",
    backend_version="1.20.0",
    device="a CPU",
    target_digest="cd" * 32,
)
ORIGIN = EngineOrigin(
    created_by="test",
    target="cpu",
    resolved_target=ResolvedTarget(
        precision="fp32",
        schedule="layer-major",
        batch=None,
        options=OnnxRuntimeOptions(),
    ),
    graph_file="encoder.onnx",
    convolutions=40,
    quantized_convolutions=0,
)
BUNDLE = SimpleNamespace(
    manifest=SimpleNamespace(contract_id="0123", weights=SimpleNamespace(sha256="ab" * 32))
)
"""The parts of a bundle that the name of a record depends on."""
OTHER = {
    "stage": "classifier",
    "schedule": "plain",
    "source_hash": "ac" * 32,
    "graph_sha256": "ee" * 32,
    "backend": "pytorch",
    "backend_version": "1.21.0",
    "device": "another CPU",
    "target_digest": "ce" * 32,
    "weight_bits": 7,
    "revision": 2,
}


class AccidentError(Exception):
    """An error that is raised within a build."""


def build(store: EngineStore, key: EngineKey = KEY, content: bytes = b"an engine") -> Engine:
    def write(path: Path) -> BuildFacts:
        path.write_bytes(content)
        return BuildFacts()

    return store.build(key, ".onnx", ORIGIN, write)


def refusal(store: EngineStore, key: EngineKey = KEY) -> str:
    with pytest.raises(EngineError) as caught:
        store.find(key, ".onnx")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(engine: Engine, change) -> None:
    path = sidecar_path(engine.path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_built_engine_is_found(tmp_path):
    store = EngineStore(tmp_path / "engines")
    assert store.find(KEY, ".onnx") is None
    built = build(store)
    assert store.find(KEY, ".onnx") == built


def test_a_built_engine_has_the_written_content(tmp_path):
    assert build(EngineStore(tmp_path)).path.read_bytes() == b"an engine"


def test_an_engine_is_named_by_stage_and_precision(tmp_path):
    assert build(EngineStore(tmp_path)).path.name == "encoder.fp32.onnx"


def test_a_sidecar_is_beside_its_engine(tmp_path):
    engine = build(EngineStore(tmp_path))
    content = json.loads((engine.path.parent / "encoder.fp32.onnx.json").read_text())
    assert content["key"] == to_builtins(KEY)
    assert content["engine_bytes"] == len(b"an engine")


def test_a_new_store_finds_an_unchanged_key_again(tmp_path):
    build(EngineStore(tmp_path))
    assert EngineStore(tmp_path).find(replace(KEY), ".onnx").path.exists()


@pytest.mark.parametrize("field", OTHER)
def test_an_engine_of_another_key_is_not_found(tmp_path, field):
    store = EngineStore(tmp_path)
    build(store)
    assert store.find(replace(KEY, **{field: OTHER[field]}), ".onnx") is None


@pytest.mark.parametrize(
    ("backend", "precision", "is_found"),
    [
        ("onnxruntime", "fp32", True),
        ("onnxruntime", "int8", False),  # revision 1 may compute wrongly, and was not checked
        ("openvino", "int8", False),  # revision 1 split the gates' output
        ("tensorrt-rtx", "int8", True),
    ],
)
def test_engines_of_an_outdated_revision_are_not_found(backend, precision, is_found):
    first = replace(KEY, backend=backend, precision=precision)
    key = replace(first, revision=backend_class(backend).revisions.get(precision, 1))
    assert (key.digest == first.digest) is is_found


def test_building_again_replaces_the_engine(tmp_path):
    store = EngineStore(tmp_path)
    build(store)
    build(store, content=b"a better engine")
    assert store.find(KEY, ".onnx").path.read_bytes() == b"a better engine"


def test_building_again_leaves_one_folder(tmp_path):
    store = EngineStore(tmp_path)
    build(store)
    build(store, content=b"a better engine")
    assert [entry.name for entry in tmp_path.iterdir()] == [KEY.digest]


def test_engines_of_two_keys_are_kept_side_by_side(tmp_path):
    store = EngineStore(tmp_path)
    other = replace(KEY, stage="classifier")
    build(store, content=b"one")
    build(store, other, content=b"two")
    assert store.find(KEY, ".onnx").path.read_bytes() == b"one"
    assert store.find(other, ".onnx").path.read_bytes() == b"two"


def test_an_engine_without_its_sidecar_is_refused(tmp_path):
    store = EngineStore(tmp_path)
    path = sidecar_path(build(store).path)
    path.unlink()
    message = refusal(store)
    assert f"{path}: no such file" in message
    assert "run ccr-deploy build-engine with --no-cache" in message


def test_a_sidecar_without_its_engine_is_refused(tmp_path):
    store = EngineStore(tmp_path)
    path = build(store).path
    path.unlink()
    assert f"{path}: no such file" in refusal(store)


@pytest.mark.parametrize("field", ["source_hash", "backend_version", "device", "target_digest", "schedule"])
def test_another_engine_s_folder_is_refused_and_the_field_named(tmp_path, field):
    store = EngineStore(tmp_path)
    engine = build(store)
    key = replace(KEY, **{field: OTHER[field]})
    engine.path.parent.rename(tmp_path / key.digest)
    assert f"its sidecar's {field} is {getattr(KEY, field)}, expected {OTHER[field]}" in refusal(store, key)


def test_another_engine_s_sidecar_is_refused(tmp_path):
    store = EngineStore(tmp_path)
    key = replace(KEY, source_hash=OTHER["source_hash"])
    engine, other = build(store), build(store, key, content=b"other")
    sidecar_path(engine.path).write_bytes(sidecar_path(other.path).read_bytes())
    assert f"its sidecar's source_hash is {key.source_hash}, expected {KEY.source_hash}" in refusal(store)


def test_a_sidecar_of_another_version_of_the_backend_is_refused(tmp_path):
    store = EngineStore(tmp_path)
    edit(build(store), lambda content: content["key"].update(backend_version="1.19.2"))
    assert "its sidecar's backend_version is 1.19.2, expected 1.20.0" in refusal(store)


def test_every_changed_byte_of_the_engine_is_refused(tmp_path):
    store = EngineStore(tmp_path)
    engine = build(store)
    content = engine.path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1
        engine.path.write_bytes(damaged)
        message = refusal(store)
        assert f"{engine.path}: damaged or changed" in message
        assert engine.sidecar.engine_sha256[:12] in message


def test_a_truncated_engine_is_refused(tmp_path):
    store = EngineStore(tmp_path)
    engine = build(store)
    engine.path.write_bytes(engine.path.read_bytes()[:-1])
    assert "damaged or changed" in refusal(store)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "schema version None"),
        ("null", "schema version None"),
        ("7", "schema version None"),
    ],
)
def test_an_invalid_sidecar_is_refused(tmp_path, text, message):
    store = EngineStore(tmp_path)
    path = sidecar_path(build(store).path)
    path.write_text(text)
    assert f"{path}: {message}" in refusal(store)


def test_a_sidecar_of_another_schema_version_is_refused(tmp_path):
    store = EngineStore(tmp_path)
    edit(build(store), lambda content: content.update(schema_version=1))
    assert "schema version 1 is not supported, expected 5" in refusal(store)


def test_an_unknown_field_of_a_sidecar_is_refused_and_named(tmp_path):
    store = EngineStore(tmp_path)
    edit(build(store), lambda content: content.update(surprise=1))
    assert "field surprise: " in refusal(store)


def test_a_missing_field_of_a_sidecar_is_refused_and_named(tmp_path):
    store = EngineStore(tmp_path)
    edit(build(store), lambda content: content["key"].pop("device"))
    assert "field key.device: " in refusal(store)


@pytest.mark.parametrize("error", [AccidentError, KeyboardInterrupt, EngineError])
def test_a_failed_build_leaves_nothing(tmp_path, error):
    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    with pytest.raises(error):
        EngineStore(tmp_path).build(KEY, ".onnx", ORIGIN, write)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [AccidentError, KeyboardInterrupt])
def test_a_failed_rebuild_leaves_the_old_engine(tmp_path, error):
    store = EngineStore(tmp_path)
    build(store)

    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    with pytest.raises(error):
        store.build(KEY, ".onnx", ORIGIN, write)
    assert store.find(KEY, ".onnx").path.read_bytes() == b"an engine"


def test_the_log_of_a_failed_build_is_kept_until_one_succeeds(tmp_path):
    store = EngineStore(tmp_path)

    def fail(path: Path) -> BuildFacts:
        log_path(path).write_text("why")
        raise EngineError("cannot be built")

    with pytest.raises(EngineError, match="cannot be built; the builder's log: ") as caught:
        store.build(KEY, ".onnx", ORIGIN, fail)
    log = tmp_path / f"{KEY.digest}.failed.log"
    assert str(log) in str(caught.value)
    assert log.read_text() == "why"
    build(store)
    assert [entry.name for entry in tmp_path.iterdir()] == [KEY.digest]


def test_a_build_that_writes_no_engine_raises_an_engine_error(tmp_path):
    with pytest.raises(EngineError):
        EngineStore(tmp_path).build(KEY, ".onnx", ORIGIN, lambda _: BuildFacts())
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_build_is_not_found(tmp_path):
    store = EngineStore(tmp_path)
    found = []

    def write(path: Path) -> BuildFacts:
        path.write_bytes(b"an engine")
        found.append(store.find(KEY, ".onnx"))
        return BuildFacts()

    store.build(KEY, ".onnx", ORIGIN, write)
    assert found == [None]


def test_a_file_in_place_of_the_store_raises_an_engine_error(tmp_path):
    path = tmp_path / "engines"
    path.write_text("a file")
    with pytest.raises(EngineError, match="the engine store cannot be written") as caught:
        build(EngineStore(path))
    assert str(path) in str(caught.value)


def test_a_file_in_place_of_a_parent_folder_raises_an_engine_error(tmp_path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(EngineError, match="the engine store cannot be written"):
        build(EngineStore(tmp_path / "file" / "engines"))


def test_the_rest_of_an_abandoned_build_is_removed(tmp_path):
    """The id of the process does not matter: in a container every build may be process 1."""
    abandoned = tmp_path / ".building-x1"
    (abandoned / "engine").mkdir(parents=True)
    (abandoned / "engine" / "encoder.fp32.onnx").write_bytes(b"half")
    build(EngineStore(tmp_path))
    assert not abandoned.exists()


def test_a_concurrent_build_is_not_removed(tmp_path):
    store, other = EngineStore(tmp_path), EngineStore(tmp_path)
    second = replace(KEY, stage="classifier")

    def write(path: Path) -> BuildFacts:
        path.write_bytes(b"slow")
        build(other, second)  # removes what was abandoned
        assert path.read_bytes() == b"slow"
        return BuildFacts()

    store.build(KEY, ".onnx", ORIGIN, write)
    assert store.find(KEY, ".onnx").path.read_bytes() == b"slow"
    assert not list(tmp_path.glob(".building-*"))


def test_the_next_build_removes_the_rest_of_a_killed_build(tmp_path):
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "import json\n"
        "from ccr_deploy.engines.sidecar import EngineKey, EngineOrigin\n"
        "from ccr_deploy.engines.store import EngineStore\n"
        "from ccr_deploy.core.records import convert\n"
        "key = convert(EngineKey, json.loads(sys.argv[2]))\n"
        "origin = convert(EngineOrigin, json.loads(sys.argv[3]))\n"
        "def die(path):\n"
        "    path.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "EngineStore(Path(sys.argv[1])).build(key, '.onnx', origin, die)\n"
    )
    records = (to_json(KEY), to_json(ORIGIN))
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), *records], check=False)
    assert done.returncode == -9
    assert [entry.name.startswith(".building-") for entry in tmp_path.iterdir()] == [True]
    build(EngineStore(tmp_path))
    assert [entry.name for entry in tmp_path.iterdir()] == [KEY.digest]


def test_the_default_store_is_taken_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    assert EngineStore.default().path == tmp_path


def test_without_the_variable_the_default_store_is_in_the_user_cache(tmp_path, monkeypatch):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert EngineStore.default().path == tmp_path / "ccr-deploy" / "engines"


@pytest.mark.parametrize(
    ("owner", "mode", "user", "problem"),
    [
        (1000, 0o40700, 1000, None),
        (1000, 0o40755, 1000, None),
        (0, 0o40700, 0, None),
        (1000, 0o40775, 1000, "writable by other users (mode 0775)"),
        (1000, 0o40707, 1000, "writable by other users (mode 0707)"),
        (1000, 0o41777, 1000, "writable by other users (mode 1777)"),
        (0, 0o40755, 10001, "owned by user 0, but you are user 10001"),
        (1000, 0o40700, 0, "owned by user 1000, but you are user 0"),
        (0, 0o42777, 10001, "owned by user 0, but you are user 10001"),
    ],
)
def test_a_store_that_others_can_write_to_is_detected(owner, mode, user, problem):
    assert sharing_problem(owner, mode, user) == problem


def test_a_new_store_is_private(tmp_path):
    store = EngineStore(tmp_path / "cache" / "engines")
    build(store)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o700


def test_a_store_that_others_may_write_to_is_neither_read_nor_written(tmp_path, monkeypatch):
    store = EngineStore(tmp_path / "engines")
    build(store)
    store.path.chmod(0o777)
    message = r"engines: writable by other users .mode 0777.* --engines, .* CCR_DEPLOY_SHARED_ENGINES=1$"
    for use in (
        lambda: store.find(KEY, ".onnx"),
        lambda: build(store),
        lambda: store.chosen(BUNDLE, "cpu"),
        lambda: store.choose(BUNDLE, "cpu", {}),
    ):
        with pytest.raises(EngineError, match=message):
            use()
    monkeypatch.setenv("CCR_DEPLOY_SHARED_ENGINES", "1")
    assert store.find(KEY, ".onnx") is not None


def test_a_rebuild_killed_between_its_renames_loses_nothing(tmp_path):
    store = EngineStore(tmp_path)
    engine = build(store)
    abandoned = tmp_path / ".building-x1"
    abandoned.mkdir()
    engine.path.parent.rename(abandoned / KEY.digest)
    assert store.find(KEY, ".onnx") == engine
    engine.path.parent.rename(abandoned / KEY.digest)
    build(store, replace(KEY, stage="classifier"))  # removes what was abandoned
    assert store.find(KEY, ".onnx") == engine
    assert not abandoned.exists()


def test_unfinished_files_are_removed(tmp_path):
    store = EngineStore(tmp_path)
    engine = build(store)
    for left in (tmp_path / ".chosen.0a.json.x1.tmp", engine.path.parent / ".encoder.fp32.onnx.json.x1.tmp"):
        left.write_text("{")
    build(store, replace(KEY, stage="classifier"))
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_damaged_record_of_the_last_build_is_refused_by_readers_and_replaced_by_a_build(tmp_path):
    store = EngineStore(tmp_path)
    resolved = ORIGIN.resolved_target
    store.choose(BUNDLE, "cpu", {"encoder": resolved})
    (note,) = tmp_path.glob("chosen.*.json")
    note.write_text("{")
    with pytest.raises(EngineError, match="damaged: run ccr-deploy build-engine, which replaces it"):
        store.chosen(BUNDLE, "cpu")
    store.choose(BUNDLE, "cpu", {"classifier": resolved})
    assert store.chosen(BUNDLE, "cpu") == {"classifier": resolved}


@pytest.fixture
def full_disk(tmp_path):
    """A disk of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)  # noqa: S607


def test_a_full_disk_is_reported_instead_of_the_graph(full_disk):
    def write(path: Path) -> BuildFacts:
        """As a library does that cannot write its engine."""
        try:
            path.write_bytes(bytes(1 << 20))
        except OSError:
            raise EngineError("encoder.onnx: cannot be built") from None
        return BuildFacts()

    with pytest.raises(EngineError) as caught:
        EngineStore(full_disk / "engines").build(KEY, ".onnx", ORIGIN, write)
    assert str(caught.value).endswith("engines: the engine store cannot be written (No space left on device)")
    assert list((full_disk / "engines").iterdir()) == []
