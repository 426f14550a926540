"""The container files without a container engine: linters, and the commands that they run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.hosts.processes import PATIENCE_SECONDS, started
from ccr_deploy.core.control_groups import memory_limit_bytes
from ccr_deploy.core.precisions import PRECISIONS
from scripts.lock_images import CPU
from tests.support.cli_runner import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccr_deploy.bundle.reader import Bundle
    from tests.support.demo import CalibratedDemo

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SCRIPTS = ROOT / "deploy" / "container"
BIN = Path(sys.executable).parent
_IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1, 32, 48, 3], "data": [99] * (32 * 48 * 3)}
ENCODE = json.dumps({"inputs": [_IMAGE]}).encode()


def start(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``start.sh ARGUMENTS`` with this environment's ccr-deploy."""
    return subprocess.run(
        ["/bin/sh", str(SCRIPTS / "start.sh"), *arguments],
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_hadolint_and_shellcheck_report_no_problem() -> None:
    for command in (["hadolint", "Dockerfile"], ["shellcheck", *map(str, SCRIPTS.glob("*.sh"))]):
        checked = subprocess.run(
            [str(BIN / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stdout) == (0, "")


def test_everything_that_is_copied_is_in_the_context() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = re.findall(r"^COPY (?:--chmod=\S+ )?([^-].*) \S+$", DOCKERFILE, flags=re.MULTILINE)
    sources = [source for line in copied for source in line.split() if source != "${BUNDLE}"]
    assert "deploy/container/start.sh" in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(source == name or source.startswith(f"{name}/") for name in kept), source


def test_modes_are_octal() -> None:
    """Buildah, Podman and Docker's front ends 1.10 to 1.13 support no others."""
    modes = re.findall(r"--chmod=(\S+)", DOCKERFILE)
    assert modes
    assert [mode for mode in modes if not re.fullmatch(r"0[0-7]{3}", mode)] == []


def test_the_bundle_s_layer_is_readable_to_everybody_and_writable_to_nobody(tmp_path: Path) -> None:
    """The umask with which the bundle was created does not matter."""
    (command,) = re.findall(r"^RUN (chmod .* /bundle)$", DOCKERFILE, flags=re.MULTILINE)
    for private, file_mode in ((0o700, 0o600), (0o777, 0o666)):
        bundle = tmp_path / f"bundle{private:o}"
        folder = bundle / "folder"
        folder.mkdir(parents=True)
        (folder / "file").touch()
        (folder / "file").chmod(file_mode)
        for path in (folder, bundle):
            path.chmod(private)
        subprocess.run(command.replace("/bundle", str(bundle)), shell=True, check=True)  # noqa: S602
        modes = [path.stat().st_mode & 0o777 for path in (bundle, folder, folder / "file")]
        assert modes == [0o555, 0o555, 0o444]
        bundle.chmod(0o755)
        folder.chmod(0o755)  # so that pytest can remove them


@pytest.mark.parametrize("image", ["PYTHON", "SERVER", "JETSON"])
def test_a_base_s_digest_is_part_of_its_name(image: str) -> None:
    """If it were a separate argument, another base would inherit it."""
    (name,) = re.findall(rf"^ARG {image}_IMAGE=(\S+)$", DOCKERFILE, flags=re.MULTILINE)
    _, _, digest = name.partition("@")
    assert re.fullmatch(r"(sha256:[0-9a-f]{64})?", digest)
    assert f"FROM ${{{image}_IMAGE}} AS" in DOCKERFILE
    assert bool(digest) == (image == "PYTHON")


@pytest.mark.parametrize("stage", ["cpu", "server", "jetson"])
def test_a_final_stage_is_unprivileged_checked_and_without_build_tools(stage: str) -> None:
    (text,) = re.findall(
        rf"^FROM [^\n]* AS {stage}\n(.*?)(?=^FROM|\Z)", DOCKERFILE, flags=re.MULTILINE | re.DOTALL
    )
    for line in (
        "USER 10001:10001",
        "VOLUME /engines",
        'ENTRYPOINT ["start.sh"]',
        'CMD ["start.sh", "healthy"]',
    ):
        assert line in text
    for unwanted in ("torch", "modelopt", "export", "precision", "train", "apt-get", "gcc", ".plan"):
        assert unwanted not in text


def test_build_writes_the_engines_to_the_store(tiny_bundle: Bundle, tmp_path: Path) -> None:
    environment = {
        "CCR_DEPLOY_BUNDLE": str(tiny_bundle.path),
        "CCR_DEPLOY_ENGINES": str(tmp_path / "engines"),
        "CCR_DEPLOY_TARGET": "cpu",
    }
    first = start("build", **environment)
    assert first.returncode == 0, first.stderr
    assert "target: cpu: " in first.stdout
    assert list((tmp_path / "engines").glob("*/encoder.fp32.onnx"))
    assert "reused from the engine store" in start("build", **environment).stdout
    del environment["CCR_DEPLOY_TARGET"]
    assert "the default" in start("build", **environment).stdout


@contextlib.contextmanager
def serving(path: str, environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``start.sh serve`` as a container starts it, but on free ports, once it is ready, and its address."""
    ports = ("--host", "127.0.0.1", "--http-port", "0", "--grpc-port", "0", "--json")
    command = ["/bin/sh", SCRIPTS / "start.sh", "serve", *ports]
    variables = os.environ | environment | {"PATH": path}
    with started(command, env=variables, stdout=subprocess.PIPE) as server:
        assert server.stdout
        events = (json.loads(line) for line in server.stdout if line.startswith('{"event"'))
        listening, ready = next(events), next(events)
        assert (listening["event"], ready["event"]) == ("listening", "ready")
        yield server, f"127.0.0.1:{listening['http_port']}"


def test_serve_builds_first_then_serves_until_it_is_stopped(tiny_bundle: Bundle, tmp_path: Path) -> None:
    environment = {
        "CCR_DEPLOY_BUNDLE": str(tiny_bundle.path),
        "CCR_DEPLOY_ENGINES": str(tmp_path / "engines"),
        "CCR_DEPLOY_TARGET": "cpu",
    }
    with serving(f"{BIN}:{os.environ['PATH']}", environment) as (server, address):
        with urllib.request.urlopen(f"http://{address}/v2/health/ready", timeout=PATIENCE_SECONDS) as answer:
            assert answer.status == 200
        server.terminate()  # reaches the server itself, which took the shell's place
        assert server.wait(timeout=PATIENCE_SECONDS) == 0


def test_the_precision_comes_from_the_environment(calibrated_demo: CalibratedDemo, tmp_path: Path) -> None:
    environment = {
        "CCR_DEPLOY_BUNDLE": str(calibrated_demo.bundle.path),
        "CCR_DEPLOY_ENGINES": str(tmp_path / "engines"),
        "CCR_DEPLOY_TARGET": "cpu-openvino",
        "CCR_DEPLOY_PRECISION": "int8",
    }
    built = start("build", **environment)
    assert built.returncode == 0, built.stderr
    assert list((tmp_path / "engines").glob("*/encoder.int8.blob"))
    refused = start("serve", **environment | {"CCR_DEPLOY_PRECISION": "int4"})
    assert refused.returncode == 2
    assert refused.stderr.endswith(f"int4: not one of {', '.join(PRECISIONS)}, auto\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("builder", ["exec sleep 600", "trap 'exit 0' TERM; while :; do sleep 0.01; done"])
def test_sigterm_ends_the_build_and_nothing_is_served(
    tmp_path: Path, number: signal.Signals, builder: str
) -> None:
    """As a container that is stopped during its first start, also if the build ends well at that moment."""
    (tmp_path / "ccr-deploy").write_text(f'#!/bin/sh\necho "$1"\n{builder}\n')
    (tmp_path / "ccr-deploy").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["/bin/sh", SCRIPTS / "start.sh", "serve"]
    with started(command, env=environment, stdout=subprocess.PIPE) as container:
        assert container.stdout
        assert container.stdout.readline() == "build-engine\n"
        container.send_signal(number)
        assert container.wait(timeout=PATIENCE_SECONDS) == 128 + signal.SIGTERM
        assert container.stdout.read() == ""


def test_sigterm_ends_the_verification_and_nothing_is_served(tmp_path: Path) -> None:
    (tmp_path / "ccr-deploy").write_text('#!/bin/sh\necho "$1"\n[ "$1" = build-engine ] || exec sleep 600\n')
    (tmp_path / "ccr-deploy").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CCR_DEPLOY_GOLDEN": "a.golden"}
    command = ["/bin/sh", SCRIPTS / "start.sh", "serve"]
    with started(command, env=environment, stdout=subprocess.PIPE) as container:
        assert container.stdout
        assert [container.stdout.readline() for _ in range(2)] == ["build-engine\n", "verify\n"]
        container.send_signal(signal.SIGTERM)
        assert container.wait(timeout=PATIENCE_SECONDS) == 128 + signal.SIGTERM
        assert container.stdout.read() == ""


@pytest.mark.parametrize("command", ["build-engine", "verify"])
def test_sigterm_before_a_command_starts_is_not_lost(tmp_path: Path, command: str) -> None:
    """The signal comes when `run` has begun but its command has not."""
    text = (SCRIPTS / "start.sh").read_text()
    early = text.replace("  running=1\n", f'  running=1\n  [ "$2" != {command} ] || kill -TERM $$\n')
    assert early != text
    (tmp_path / "start.sh").write_text(early)
    (tmp_path / "ccr-deploy").write_text(f'#!/bin/sh\n[ "$1" != {command} ] || exec sleep 600\n')
    (tmp_path / "ccr-deploy").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CCR_DEPLOY_GOLDEN": "a.golden"}
    with started(["/bin/sh", tmp_path / "start.sh", "serve"], env=environment) as container:
        assert container.wait(timeout=PATIENCE_SECONDS) == 128 + signal.SIGTERM


def test_built_engines_are_verified_with_the_golden_file(tiny_bundle: Bundle, tmp_path: Path) -> None:
    environment = {
        "CCR_DEPLOY_BUNDLE": str(tiny_bundle.path),
        "CCR_DEPLOY_ENGINES": str(tmp_path / "engines"),
        "CCR_DEPLOY_TARGET": "cpu",
        "CCR_DEPLOY_GOLDEN": str(tmp_path / "tiny.golden"),
    }
    # With limits that no engine holds, then with the bundle's.
    for options, status in ((("--gate", "min-cosine=2"), 1), ((), 0)):
        where = ("--engines", tmp_path / "reference", *options)
        written = run("verify", tiny_bundle.path, "--export-golden", tmp_path / "tiny.golden", *where)
        assert written.status == 0
        built = start("build", **environment)
        assert built.returncode == status, built.stderr
        assert "Codes compared with PyTorch, recorded in a golden file" in built.stdout
        assert ("gates failed" in built.stderr) == bool(status)


@pytest.mark.parametrize(("value", "options"), [("1", ["--require-verified"]), ("0", [])])
def test_verified_engines_are_required_by_the_environment(
    tmp_path: Path, value: str, options: list[str]
) -> None:
    (tmp_path / "ccr-deploy").write_text('#!/bin/sh\n[ "$1" = build-engine ] || echo "$@"\n')
    (tmp_path / "ccr-deploy").chmod(0o755)
    where = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CCR_DEPLOY_TARGET": "cpu"}
    served = start("serve", **where, CCR_DEPLOY_REQUIRE_VERIFIED=value)
    assert [word for word in served.stdout.split() if word == "--require-verified"] == options
    refused = start("serve", **where, CCR_DEPLOY_REQUIRE_VERIFIED="yes")
    assert refused.returncode == 2
    assert refused.stderr.endswith("CCR_DEPLOY_REQUIRE_VERIFIED=yes: not 0 or 1\n")


def test_a_killed_build_reports_the_memory_limit(tmp_path: Path) -> None:
    (tmp_path / "ccr-deploy").write_text("#!/bin/sh\nkill -KILL $$\n")
    (tmp_path / "ccr-deploy").chmod(0o755)
    killed = start("serve", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert killed.returncode == 128 + signal.SIGKILL
    # start.sh reads the limit of a container, whose own group is the mount point, as without /proc.
    (tmp_path / "sys").symlink_to("/sys")
    limit = memory_limit_bytes(tmp_path)
    allowed = f"{limit // 2**20} MiB" if limit else "as much memory as the machine has"
    message = (
        "start.sh: ccr-deploy build-engine was killed, probably because memory ran out: "
        f"the container may use {allowed}: give it more memory"
    )
    assert message in killed.stderr


@pytest.mark.parametrize(
    ("precision", "arguments", "options"),
    [
        ("", (), ["--no-timing"]),
        ("int8", (), ["--int8", "--no-timing"]),
        ("auto", (), ["--auto"]),
        ("", ("--auto",), ["--auto"]),
        ("", ("--stage", "encoder"), ["--no-timing", "--stage", "encoder"]),
    ],
)
def test_a_start_times_engines_only_for_auto(
    tmp_path: Path, precision: str, arguments: tuple[str, ...], options: list[str]
) -> None:
    (tmp_path / "ccr-deploy").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "ccr-deploy").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CCR_DEPLOY_PRECISION": precision}
    assert start("build", *arguments, **environment).stdout.split() == ["build-engine", *options]


def test_an_unknown_command_of_the_entry_point_is_refused() -> None:
    refused = start("deploy")
    assert refused.returncode == 2
    assert refused.stderr == "start.sh: deploy: not one of build, serve, healthy\n"


def test_the_health_check_fails_without_a_server() -> None:
    assert start("healthy").returncode != 0


@pytest.mark.slow  # installs from the package index
def test_install_makes_an_environment_that_builds_and_serves(tiny_bundle: Bundle, tmp_path: Path) -> None:
    """What the stage cpu-environment runs, into a folder of the test's."""
    wheels = tmp_path / "wheels"
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    python = tmp_path / "python"  # without this test's own packages
    venv.create(python, with_pip=True)
    prefix = tmp_path / "ccr-deploy"
    installed = subprocess.run(
        ["/bin/sh", str(SCRIPTS / "install.sh"), str(wheels), str(ROOT / CPU.path)],
        env={
            **os.environ,
            "PATH": f"{python / 'bin'}:/usr/bin:/bin",
            "PREFIX": str(prefix),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert installed.returncode == 0, installed.stderr
    assert not list(prefix.glob("lib/*/site-packages/pip"))
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle.path, bundle)
    environment = {
        "CCR_DEPLOY_BUNDLE": str(bundle),
        "CCR_DEPLOY_ENGINES": str(tmp_path / "store"),
        "CCR_DEPLOY_TARGET": "cpu",
    }
    path = f"{prefix / 'bin'}:/usr/bin:/bin"
    built = start("build", **environment, PATH=path)
    assert (built.returncode, built.stderr) == (0, "")
    with serving(path, environment) as (server, address):
        with urllib.request.urlopen(
            f"http://{address}/v2/models/encoder/infer", ENCODE, PATIENCE_SECONDS
        ) as answer:
            (code,) = json.loads(answer.read())["outputs"]
        server.terminate()
        assert server.wait(timeout=PATIENCE_SECONDS) == 0
    assert code["shape"] == [1, 12]
