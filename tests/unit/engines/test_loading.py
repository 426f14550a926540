"""Engines that another build replaces between the check of an engine and its loading."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from ccr_deploy import runtime
from ccr_deploy.bundle.reader import sha256_of
from ccr_deploy.core.records import to_json
from ccr_deploy.core.stages import CHAIN_STAGES
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.lookup import find_engine
from ccr_deploy.engines.sidecar import read_sidecar, sidecar_path
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.backends.base import EngineFile
    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.engines.store import Engine


@pytest.fixture
def factory(tiny_bundle: Bundle, built_store: EngineStore, tmp_path: Path) -> EngineFactory:
    shutil.copytree(built_store.path, tmp_path / "engines")
    return EngineFactory.of_last_build(tiny_bundle, "cpu", EngineStore(tmp_path / "engines"))


def replace_engine(path: Path) -> None:
    """Put other bytes with a matching sidecar in an engine's place, as a second build does."""
    sidecar = read_sidecar(path)
    with path.open("ab") as file:
        file.write(b"\0")
    sidecar_path(path).write_text(to_json(replace(sidecar, engine_sha256=sha256_of(path))))


def test_an_engine_that_was_replaced_after_it_was_found_is_not_loaded(factory: EngineFactory) -> None:
    engine = factory.find("encoder")
    factory.load(engine).close()
    replace_engine(engine.path)
    with pytest.raises(EngineError) as caught:
        factory.load(engine)
    message = str(caught.value)
    assert "\n" not in message
    assert "replaced by another build since it was checked" in message
    assert f"expected {engine.sidecar.engine_sha256[:12]}…: run the command again" in message


def test_an_engine_that_is_replaced_while_the_library_reads_it_is_closed_and_refused(
    factory: EngineFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, load = factory.find("encoder"), factory.backend.load
    runners: list[Runner] = []

    def slow_load(file: EngineFile) -> Runner:
        runners.append(load(file))
        replace_engine(file.path)
        return runners[0]

    monkeypatch.setattr(factory.backend, "load", slow_load)
    with pytest.raises(EngineError, match="replaced by another build"):
        factory.load(engine)
    with pytest.raises(EngineError, match="the runner is closed"):
        runners[0].infer({})


def test_if_one_of_several_engines_cannot_be_loaded_the_others_are_closed(
    factory: EngineFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines: dict[Stage, Engine] = {stage: factory.find(stage) for stage in CHAIN_STAGES}
    replace_engine(engines["classifier"].path)
    load = factory.backend.load
    runners: list[Runner] = []

    def kept_load(file: EngineFile) -> Runner:
        runners.append(load(file))
        return runners[-1]

    monkeypatch.setattr(factory.backend, "load", kept_load)
    with pytest.raises(EngineError, match="replaced by another build"):
        factory.load_all(engines)
    (encoder,) = runners
    with pytest.raises(EngineError, match="the runner is closed"):
        encoder.infer({})


def test_the_library_loads_only_the_engine_that_it_found(
    factory: EngineFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found_then_replaced(*of: Any, **options: Any) -> Engine:
        engine = find_engine(*of, **options)
        replace_engine(engine.path)
        return engine

    monkeypatch.setattr(runtime, "find_engine", found_then_replaced)
    with pytest.raises(EngineError, match="replaced by another build"):
        runtime.Encoder.load(factory.bundle, "cpu", factory.store)
