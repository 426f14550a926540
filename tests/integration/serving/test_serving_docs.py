"""Whoever types the commands of docs/serving.md gets answers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.codec.payload import encode_payload
from tests.support.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore

DOCUMENT = (Path(__file__).parents[3] / "docs" / "serving.md").read_text(encoding="utf-8")
DEFAULT_ADDRESS = "localhost:8080"


@pytest.fixture(scope="module")
def server(tiny_bundle: Bundle, built_store: EngineStore) -> Iterator[ServerProcess]:
    with ServerProcess(tiny_bundle, built_store) as process:
        process.wait_for("ready")
        yield process


def example(language: str, server: ServerProcess) -> str:
    """The document's one block in a language, for the server's address."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    assert DEFAULT_ADDRESS in block
    return block.replace(DEFAULT_ADDRESS, server.http_address)


def test_tritonclient(server: ServerProcess, tiny_bundle: Bundle) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", example("python", server)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert any(name in finished.stdout for name in tiny_bundle.manifest.class_names)
    assert "(2, 5)" in finished.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(server: ServerProcess, tiny_bundle: Bundle, tmp_path: Path) -> None:
    contract = tiny_bundle.manifest.contract
    payload = encode_payload(np.zeros(contract.code_bytes, np.uint8), contract)
    (tmp_path / "photo.ccr").write_bytes(payload)
    program = "set -e\n" + example("sh", server).replace("curl -s ", "curl -sf ")
    finished = subprocess.run(
        ["/bin/bash", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    (label,) = re.findall(r'"name":"label"[^\n]*"data":\["(\w+)"\]', finished.stdout)
    assert label in tiny_bundle.manifest.class_names
    assert "ccr_deploy_images_total" in finished.stdout
