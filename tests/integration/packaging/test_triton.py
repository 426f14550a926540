"""The generated repository in a real Triton server, with Triton's client."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from benchmarks.hosts.processes import PATIENCE_SECONDS, heirs
from benchmarks.hosts.triton.server import Installation, NoServerError, serving
from ccr_deploy.codec.payload import decode_payload, encode_payload
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.export.exporter import export_bundle
from ccr_deploy.models.checkpoint import untrained_checkpoint
from ccr_deploy.packaging.triton.package import package_triton
from ccr_deploy.runtime import Classifier, Encoder
from tests.support.bundles import TINY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from benchmarks.hosts.triton.server import TritonServer
    from ccr_deploy.bundle.reader import Bundle

CLIENTS = {"http": tritonclient.http, "grpc": tritonclient.grpc}
INVALID = {"http": "400", "grpc": "StatusCode.INVALID_ARGUMENT"}
STOP_AT_ONCE = ("--exit-timeout-secs=5",)


def server_is_missing() -> str:
    try:
        Installation.find()
    except NoServerError as error:
        return str(error)
    return ""


pytestmark = [pytest.mark.triton, pytest.mark.skipif(bool(server_is_missing()), reason=server_is_missing())]


class Client:
    """One of Triton's clients: arrays in, arrays by name out."""

    def __init__(self, protocol: str, server: TritonServer) -> None:
        self.library = CLIENTS[protocol]
        self.raw: Any = self.library.InferenceServerClient(getattr(server, protocol))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.raw.close()

    def tensor(self, name: str, array: npt.NDArray[Any]) -> Any:
        tensor = self.library.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        return tensor

    def infer(self, model: str, **inputs: npt.NDArray[Any]) -> Any:
        return self.raw.infer(model, [self.tensor(name, array) for name, array in inputs.items()])

    def logits(self, model: str, **inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return self.infer(model, **inputs).as_numpy("logits")

    def labels(self, model: str, count: int, **inputs: npt.NDArray[Any]) -> list[list[tuple[str, int, str]]]:
        """For each row the classes with the largest logits: logit, label, name."""
        outputs = [self.library.InferRequestedOutput("logits", class_count=count)]
        tensors = [self.tensor(name, array) for name, array in inputs.items()]
        rows = self.raw.infer(model, tensors, outputs=outputs).as_numpy("logits")
        parts = [[cell.decode().split(":", 2) for cell in row] for row in rows.reshape(-1, count)]
        return [[(logit, int(label), name) for logit, label, name in row] for row in parts]

    def refusal(self, model: str, **inputs: npt.NDArray[Any]) -> tuple[str, str]:
        with pytest.raises(InferenceServerException) as caught:
            self.infer(model, **inputs)
        return str(caught.value.status()), caught.value.message()


@pytest.fixture(scope="module")
def repository(
    tiny_bundle: Bundle, built_store: EngineStore, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("triton") / "repository"
    package_triton(tiny_bundle, "cpu", built_store, path)
    return path


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    with serving(repository, tmp_path_factory.mktemp("server"), *STOP_AT_ONCE) as ready:
        yield ready


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, server: TritonServer) -> Iterator[Client]:
    with Client(request.param, server) as opened:
        yield opened


@pytest.fixture(scope="module")
def images() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (6, 32, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def payloads(tiny_bundle: Bundle, built_store: EngineStore, images: npt.NDArray[np.uint8]) -> list[bytes]:
    with Encoder.load(tiny_bundle, "cpu", built_store) as encoder:
        return encoder.encode(images)


@pytest.fixture(scope="module")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same model with other weights: the same shapes, another contract."""
    path = tmp_path_factory.mktemp("other") / "bundle"
    return export_bundle(untrained_checkpoint(TINY, seed=1), path, schedules=("iteration-major",))


def column(payloads: list[bytes]) -> npt.NDArray[np.object_]:
    """Payloads in Triton's form, ``BYTES [N, 1]``."""
    return np.array([[payload] for payload in payloads], dtype=np.object_)


def statistics(server: TritonServer, model: str, version: str = "1") -> dict[str, Any]:
    address = f"http://{server.http}/v2/models/{model}/versions/{version}/stats"
    with urllib.request.urlopen(address, timeout=PATIENCE_SECONDS) as reply:
        return json.load(reply)["model_stats"][0]


def test_the_server_is_ready_with_every_model(client: Client) -> None:
    assert client.raw.is_server_ready()
    for model in ("encoder", "classifier", "payload", "image_to_label", "payload_to_label"):
        assert client.raw.is_model_ready(model, "1")


def test_the_engines_were_warm_before_the_server_was_ready(repository: Path, tmp_path: Path) -> None:
    with serving(repository, tmp_path, *STOP_AT_ONCE) as fresh:
        for model in ("encoder", "classifier"):
            batches = statistics(fresh, model)["batch_stats"]
            assert {batch["batch_size"] for batch in batches} == {1, 8}


def test_the_encoder_gives_the_codes_of_the_library(
    client: Client, tiny_bundle: Bundle, images: npt.NDArray[np.uint8], payloads: list[bytes]
) -> None:
    codes = client.infer("encoder", image=images).as_numpy("code")
    contract = tiny_bundle.manifest.contract
    assert [encode_payload(code, contract) for code in codes] == payloads


def test_the_payload_step_decodes_payloads_as_the_library_does(
    client: Client, tiny_bundle: Bundle, payloads: list[bytes]
) -> None:
    codes = client.infer("payload", payload=column(payloads)).as_numpy("code")
    expected = [decode_payload(payload, tiny_bundle.manifest.contract) for payload in payloads]
    assert codes.tolist() == np.stack(expected).tolist()


def test_an_image_goes_through_encoder_and_classifier(client: Client, images: npt.NDArray[np.uint8]) -> None:
    codes = client.infer("encoder", image=images).as_numpy("code")
    assert (client.logits("image_to_label", image=images) == client.logits("classifier", code=codes)).all()


def test_a_payload_goes_through_payload_step_and_classifier(client: Client, payloads: list[bytes]) -> None:
    codes = client.infer("payload", payload=column(payloads)).as_numpy("code")
    expected = client.logits("classifier", code=codes)
    assert (client.logits("payload_to_label", payload=column(payloads)) == expected).all()


@pytest.fixture(scope="module")
def answers(tiny_bundle: Bundle, built_store: EngineStore, payloads: list[bytes]) -> list[tuple[int, str]]:
    """The library's results: for each payload its label and name."""
    with Classifier.load(tiny_bundle, "cpu", built_store) as classifier:
        return [(answer.label, answer.name) for answer in classifier.classify(payloads)]


def test_the_labels_are_the_librarys(
    client: Client,
    images: npt.NDArray[np.uint8],
    payloads: list[bytes],
    answers: list[tuple[int, str]],
) -> None:
    for found in (
        client.labels("image_to_label", 1, image=images),
        client.labels("payload_to_label", 1, payload=column(payloads)),
        client.labels("classifier", 1, code=client.infer("encoder", image=images).as_numpy("code")),
    ):
        assert [(label, name) for ((_, label, name),) in found] == answers


def test_all_labels_come_with_their_logits_in_order(client: Client, images: npt.NDArray[np.uint8]) -> None:
    logits = client.logits("image_to_label", image=images[:1])[0]
    (row,) = client.labels("image_to_label", 5, image=images[:1])
    assert [label for _, label, _ in row] == np.argsort(-logits).tolist()
    assert np.allclose([float(logit) for logit, _, _ in row], np.sort(logits)[::-1], atol=1e-5)


def damaged(payload: bytes, position: int) -> bytes:
    return payload[:position] + bytes([payload[position] ^ 1]) + payload[position + 1 :]


@pytest.mark.parametrize("model", ["payload", "payload_to_label"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda payload: damaged(payload, 0), "not a payload"),
        (lambda payload: damaged(payload, 4), "format version"),
        (lambda payload: damaged(payload, 30), "CRC-32"),
        (lambda payload: payload[:-1], "but its header says"),
        (lambda payload: payload + b"\0", "but its header says"),
        (lambda payload: payload[:10], "truncated"),
        (lambda _: b"", "not a payload"),
    ],
)
def test_a_damaged_payload_is_refused(
    client: Client, payloads: list[bytes], model: str, change: Any, message: str
) -> None:
    protocol = "http" if client.library is tritonclient.http else "grpc"
    status, told = client.refusal(model, payload=column([payloads[0], change(payloads[1])]))
    assert status == INVALID[protocol]
    assert message in told


def test_another_contracts_payload_is_refused(
    client: Client, tiny_bundle: Bundle, other_bundle: Bundle
) -> None:
    """Its code has the right shape and its CRC is right: only the contract id differs."""
    other = other_bundle.manifest.contract
    payload = encode_payload(np.zeros(other.code_bytes, np.uint8), other)
    status, told = client.refusal("payload_to_label", payload=column([payload]))
    assert status in INVALID.values()
    assert f"contract mismatch: payload {other.contract_id}" in told
    assert tiny_bundle.manifest.contract_id in told


@pytest.mark.parametrize("model", ["encoder", "image_to_label"])
@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 32, 32, 3), np.uint8),
        np.zeros((1, 3, 32, 48), np.uint8),
        np.zeros((32, 48, 3), np.uint8),
        np.zeros((1, 32, 48, 3), np.float32),
        np.zeros((9, 32, 48, 3), np.uint8),
    ],
    ids=["small", "channels first", "no batch", "float", "batch too large"],
)
def test_wrong_shapes_and_types_are_refused(client: Client, model: str, image: npt.NDArray[Any]) -> None:
    assert client.refusal(model, image=image)[0] in INVALID.values()


@pytest.mark.parametrize("code", [np.zeros((1, 11), np.uint8), np.zeros((1, 12), np.int8)])
def test_wrong_codes_are_refused(client: Client, code: npt.NDArray[Any]) -> None:
    assert client.refusal("classifier", code=code)[0] in INVALID.values()


@pytest.mark.parametrize("body", [b"", b"garbage", b'{"inputs": 3}', b"\0" * 5000])
def test_an_invalid_request_is_refused_and_the_server_continues(server: TritonServer, body: bytes) -> None:
    connection = http.client.HTTPConnection(server.http, timeout=PATIENCE_SECONDS)
    connection.request("POST", "/v2/models/encoder/infer", body)
    assert connection.getresponse().status in {400, 500}
    connection.close()
    with Client("http", server) as client:
        assert client.raw.is_server_ready()


def test_a_client_that_disconnects_does_not_affect_others(
    server: TritonServer, images: npt.NDArray[np.uint8]
) -> None:
    address, port = server.http.split(":")
    for _ in range(20):
        with socket.create_connection((address, int(port)), timeout=PATIENCE_SECONDS) as half:
            half.sendall(b"POST /v2/models/encoder/infer HTTP/1.1\r\nContent-Length: 5000\r\n\r\nhalf of")
    with Client("grpc", server) as client:
        assert client.logits("image_to_label", image=images).shape == (6, 5)


def test_one_clients_damaged_payload_does_not_affect_others(
    server: TritonServer, payloads: list[bytes]
) -> None:
    """Requests in one batch get separate responses."""
    with Client("grpc", server) as client:
        expected = client.logits("payload_to_label", payload=column(payloads))

        def ask(number: int) -> bool:
            index = number % len(payloads)
            if number % 3 == 0:
                client.refusal("payload_to_label", payload=column([damaged(payloads[index], 25)]))
                return True
            logits = client.logits("payload_to_label", payload=column([payloads[index]]))
            return bool(np.allclose(logits[0], expected[index], atol=1e-5))

        with ThreadPoolExecutor(12) as pool:
            assert all(pool.map(ask, range(240)))


def test_waiting_requests_are_run_as_batches(server: TritonServer, images: npt.NDArray[np.uint8]) -> None:
    """In Triton's statistics, every image is counted, in fewer runs, none above the largest batch."""
    before = statistics(server, "encoder")
    with Client("grpc", server) as client:
        for burst in range(1, 21):
            send_at_once(client, images[0], 60)
            after = statistics(server, "encoder")
            inferences, executions = (
                after[count] - before[count] for count in ("inference_count", "execution_count")
            )
            assert inferences == 60 * burst
            if executions < inferences:  # as soon as requests waited for one another
                break
    assert executions < inferences
    assert 1 < max(batch["batch_size"] for batch in after["batch_stats"]) <= 8


def send_at_once(client: Client, image: npt.NDArray[np.uint8], count: int) -> None:
    """Send requests of one image each, without waiting for responses."""
    errors: SimpleQueue[Any] = SimpleQueue()
    tensor = client.tensor("image", image[None])
    for _ in range(count):
        client.raw.async_infer("encoder", [tensor], lambda result, error: errors.put(error))  # noqa: ARG005
    assert [errors.get(timeout=PATIENCE_SECONDS) for _ in range(count)] == [None] * count


def test_more_than_the_server_can_do_is_answered_or_refused(
    server: TritonServer, images: npt.NDArray[np.uint8]
) -> None:
    """2,000 requests of 32 clients that do not wait: none is lost, and all results are right."""
    with Client("grpc", server) as client:
        expected = client.logits("image_to_label", image=images)

    def send(index: int, count: int) -> Counter[str]:
        done: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
        with Client("grpc", server) as client:
            image = client.tensor("image", images[index : index + 1])
            for _ in range(count):
                client.raw.async_infer(
                    "image_to_label", [image], lambda result, error: done.put((result, error))
                )
            outcomes: Counter[str] = Counter()
            for _ in range(count):
                result, error = done.get(timeout=PATIENCE_SECONDS)
                if error is None:
                    assert np.allclose(result.as_numpy("logits")[0], expected[index], atol=1e-5)
                outcomes["answered" if error is None else str(error.status())] += 1
        return outcomes

    counts = [63] * 16 + [62] * 16
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(send, [number % len(images) for number in range(32)], counts))
    outcomes = sum(found, Counter())
    assert sum(outcomes.values()) == 2000
    assert outcomes["answered"]
    assert set(outcomes) <= {"answered", "StatusCode.UNAVAILABLE"}


def test_metrics_count_the_requests(server: TritonServer, images: npt.NDArray[np.uint8]) -> None:
    with Client("http", server) as client:
        client.infer("image_to_label", image=images[:1])
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=PATIENCE_SECONDS) as reply:
        text = reply.read().decode()
    assert 'nv_inference_request_success{model="image_to_label",version="1"}' in text


class Asking:
    """Sends requests to both ensembles until it is stopped, and counts the responses."""

    def __init__(self, server: TritonServer, image: npt.NDArray[np.uint8], payload: bytes) -> None:
        self._server, self._stop = server, threading.Event()
        self.answers: Counter[tuple[str, str]] = Counter()
        inputs = {
            "image_to_label": {"image": image[None]},
            "payload_to_label": {"payload": column([payload])},
        }
        self._threads = [threading.Thread(target=self._ask, args=each) for each in inputs.items()]

    @contextmanager
    def asking(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _ask(self, model: str, inputs: dict[str, npt.NDArray[Any]]) -> None:
        with Client("grpc", self._server) as client:
            while not self._stop.is_set():
                try:
                    answer = client.infer(model, **inputs).get_response().model_version
                except InferenceServerException as error:
                    answer = str(error)
                self.answers[model, answer] += 1

    def wait_for(self, version: str) -> None:
        """Wait until both ensembles serve this version."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not {("image_to_label", version), ("payload_to_label", version)} <= set(self.answers):
            assert time.monotonic() < deadline, self.answers
            time.sleep(0.05)


@pytest.fixture
def own_repository(repository: Path, tmp_path: Path) -> Path:
    """A copy that a test may add versions to."""
    return Path(shutil.copytree(repository, tmp_path / "repository"))


@pytest.fixture
def asking_for(images: npt.NDArray[np.uint8], payloads: list[bytes]) -> Callable[[TritonServer], Asking]:
    return lambda server: Asking(server, images[0], payloads[0])


@pytest.mark.parametrize(
    "options",
    [
        ("--model-control-mode=poll", "--repository-poll-secs=1"),
        ("--model-control-mode=explicit", "--load-model=*"),
    ],
    ids=["poll", "explicit"],
)
def test_a_new_version_is_loaded_while_the_old_one_serves(
    options: tuple[str, ...],
    tiny_bundle: Bundle,
    own_repository: Path,
    asking_for: Callable[[TritonServer], Asking],
    tmp_path: Path,
) -> None:
    store = EngineStore(tmp_path / "engines")
    with (
        serving(own_repository, tmp_path, *STOP_AT_ONCE, *options) as server,
        Client("http", server) as client,
    ):
        asking = asking_for(server)
        with asking.asking():
            asking.wait_for("1")
            assert package_triton(tiny_bundle, "cpu", store, own_repository).version.version == 2
            if "--load-model=*" in options:
                for model in ("image_to_label", "payload_to_label"):
                    client.raw.load_model(model)
            asking.wait_for("2")
        assert {version for _, version in asking.answers} == {"1", "2"}
        assert client.raw.is_model_ready("encoder", "1")
        assert client.raw.is_model_ready("encoder", "2")


def test_another_training_is_rolled_out_whole(
    own_repository: Path, other_bundle: Bundle, tmp_path: Path, payloads: list[bytes]
) -> None:
    """Codes of two trainings have one shape: the new version must not take the old one's payloads."""
    package_triton(other_bundle, "cpu", EngineStore(tmp_path / "engines"), own_repository)
    with serving(own_repository, tmp_path, *STOP_AT_ONCE) as server, Client("grpc", server) as client:
        assert "contract mismatch: payload" in client.refusal("payload_to_label", payload=column(payloads))[1]
        assert client.raw.is_model_ready("payload", "1")
        own = [encode_payload(np.zeros(12, np.uint8), other_bundle.manifest.contract)]
        assert client.logits("payload_to_label", payload=column(own)).shape == (1, 5)


def test_a_server_that_was_killed_serves_again(
    repository: Path, tmp_path: Path, images: npt.NDArray[np.uint8]
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        with serving(repository, tmp_path / name, *STOP_AT_ONCE) as server, Client("grpc", server) as client:
            assert client.logits("image_to_label", image=images).shape == (6, 5)
            if name == "first":
                server.process.kill()
                server.process.wait()
                with pytest.raises(InferenceServerException):
                    client.infer("image_to_label", image=images)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while heirs(
        "PYTEST_CURRENT_TEST", os.environ["PYTEST_CURRENT_TEST"]
    ):  # what the killed one left was ended
        assert time.monotonic() < deadline
        time.sleep(0.05)
