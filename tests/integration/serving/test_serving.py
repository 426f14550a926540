"""The local server with real clients: both models, both protocols, and invalid requests of every kind."""

from __future__ import annotations

import base64
import http.client
import json
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.service_pb2 as messages
import tritonclient.http
from msgspec.structs import replace
from tritonclient.utils import InferenceServerException

from benchmarks.hosts.processes import PATIENCE_SECONDS
from ccr_deploy.codec.payload import encode_payload
from ccr_deploy.runtime import Classifier, Encoder
from tests.support.raw_http import LIVE, ask
from tests.support.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    import numpy.typing as npt

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore

    Client = tritonclient.http.InferenceServerClient | tritonclient.grpc.InferenceServerClient

IMAGES = np.random.default_rng(11).integers(0, 256, (3, 32, 48, 3), dtype=np.uint8)
NOTHING = object()
OPTIONS = ("--max-batch", "4", "--allow-host", "gateway.example", "--allow-host", "other.example")


@pytest.fixture(scope="module")
def server(tiny_bundle: Bundle, built_store: EngineStore) -> Iterator[ServerProcess]:
    with ServerProcess(tiny_bundle, built_store, *OPTIONS) as started:
        started.wait_for("ready")
        yield started
        # Whatever was sent here, nothing went wrong that the server did not foresee.
        assert started.errors == ""


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[Client]:
    """A client with one connection."""
    with server.http() if request.param == "http" else server.grpc() as connected:
        yield connected


@pytest.fixture(scope="module")
def expected(tiny_bundle: Bundle, built_store: EngineStore) -> tuple[list[bytes], list[str]]:
    """The library's payloads and class names of IMAGES."""
    with (
        Encoder.load(tiny_bundle, "cpu", built_store) as encoder,
        Classifier.load(tiny_bundle, "cpu", built_store) as classifier,
    ):
        payloads = encoder.encode(IMAGES)
        return payloads, [prediction.name for prediction in classifier.classify(payloads)]


def library(client: Client) -> ModuleType:
    over_http = isinstance(client, tritonclient.http.InferenceServerClient)
    return tritonclient.http if over_http else tritonclient.grpc


def infer(
    client: Client,
    model: str,
    name: str,
    values: npt.NDArray[Any],
    *,
    shape: Any = None,
    datatype: str = "UINT8",
    outputs: tuple[str, ...] = (),
) -> Any:
    """Send one request with the client library."""
    tensor = library(client).InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    if shape is not None:
        tensor.set_shape(shape)
    wanted = [library(client).InferRequestedOutput(output) for output in outputs]
    return client.infer(model, [tensor], outputs=wanted or None)


def status_of(error: InferenceServerException) -> str:
    return str(error.status()).removeprefix("StatusCode.")


def payload_tensor(payloads: list[bytes]) -> npt.NDArray[np.object_]:
    return np.array(payloads, dtype=np.object_)


def test_codes_equal_those_of_the_library(client: Client, expected: tuple[list[bytes], list[str]]) -> None:
    codes = infer(client, "encoder", "image", IMAGES).as_numpy("code")
    assert codes.dtype == np.uint8
    assert [bytes(code) for code in codes] == [payload[22:-4] for payload in expected[0]]
    single = [infer(client, "encoder", "image", image[None]).as_numpy("code")[0] for image in IMAGES]
    np.testing.assert_array_equal(single, codes)


def test_labels_equal_those_of_the_library(
    client: Client, tiny_bundle: Bundle, expected: tuple[list[bytes], list[str]]
) -> None:
    payloads, names = expected
    codes = np.stack([np.frombuffer(payload[22:-4], np.uint8) for payload in payloads])
    answers = [
        infer(client, "classifier", "code", codes),
        infer(client, "classifier", "payload", payload_tensor(payloads), datatype="BYTES"),
        infer(client, "classifier", "payload", payload_tensor(payloads)[:, None], datatype="BYTES"),
    ]
    for answer in answers:
        assert [label.decode() for label in answer.as_numpy("label")] == names
        logits = answer.as_numpy("logits")
        assert (logits.dtype, logits.shape) == (np.float32, (3, 5))
        assert [tiny_bundle.manifest.class_names[row.argmax()] for row in logits] == names
        np.testing.assert_array_equal(logits, answers[0].as_numpy("logits"))


def test_a_request_selects_its_outputs(client: Client) -> None:
    answer = infer(client, "classifier", "code", np.zeros((1, 12), np.uint8), outputs=("label",))
    assert answer.as_numpy("label").shape == (1,)
    assert answer.as_numpy("logits") is None
    with pytest.raises(InferenceServerException, match="no output 'probability'"):
        infer(client, "classifier", "code", np.zeros((1, 12), np.uint8), outputs=("probability",))


def test_metadata_describe_inputs_and_outputs(client: Client, server: ServerProcess) -> None:
    as_json = {"as_json": True} if library(client) is tritonclient.grpc else {}
    encoder = client.get_model_metadata("encoder", **as_json)
    classifier = client.get_model_metadata("classifier", **as_json)

    def shapes(tensors: Any) -> dict[str, tuple[str, list[int]]]:
        return {t["name"]: (t["datatype"], [int(size) for size in t["shape"]]) for t in tensors}

    assert shapes(encoder["inputs"]) == {"image": ("UINT8", [-1, 32, 48, 3])}
    assert shapes(encoder["outputs"]) == {"code": ("UINT8", [-1, 12])}
    assert shapes(classifier["inputs"]) == {"payload": ("BYTES", [-1]), "code": ("UINT8", [-1, 12])}
    assert shapes(classifier["outputs"]) == {"logits": ("FP32", [-1, 5]), "label": ("BYTES", [-1])}
    assert client.get_server_metadata(**as_json)["name"] == "ccr-deploy"


def test_health_reports_live_and_ready(client: Client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("encoder")
    assert client.is_model_ready("classifier")


WRONG_REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "another input": ({"name": "photo"}, "expected one input, image, found photo"),
    "another type": ({"values": np.zeros((1, 32, 48, 3), np.float32), "datatype": "FP32"}, "found FP32"),
    "another size": ({"values": np.zeros((1, 48, 32, 3), np.uint8)}, r"expected UINT8 \[N, 32, 48, 3\]"),
    "no batch": ({"values": np.zeros((32, 48, 3), np.uint8)}, "found UINT8"),
    "an empty batch": ({"values": np.zeros((0, 32, 48, 3), np.uint8)}, "N from 1 to 4"),
    "too many images": ({"values": np.zeros((5, 32, 48, 3), np.uint8)}, "N from 1 to 4"),
    "a negative shape": ({"shape": [-1, 32, 48, 3]}, "N from 1 to 4"),
    "a shape of other content": ({"shape": [2, 32, 48, 3]}, "4608 values, but its shape has 9216"),
}


@pytest.mark.parametrize("mistake", WRONG_REQUESTS)
def test_a_wrong_request_is_refused_and_the_next_on_the_connection_works(
    client: Client, mistake: str
) -> None:
    changes, message = WRONG_REQUESTS[mistake]
    with pytest.raises(InferenceServerException, match=message) as raised:
        infer(client, "encoder", **{"name": "image", "values": IMAGES[:1], **changes})
    assert status_of(raised.value) in {"400", "INVALID_ARGUMENT"}
    assert infer(client, "encoder", "image", IMAGES).as_numpy("code").shape == (3, 12)


def test_an_unknown_model_is_not_found(client: Client) -> None:
    for call in (
        lambda: infer(client, "baseline", "image", IMAGES),
        lambda: client.get_model_metadata("baseline"),
    ):
        with pytest.raises(InferenceServerException, match="baseline does not exist") as raised:
            call()
        assert status_of(raised.value) in {"404", "NOT_FOUND"}
    assert infer(client, "encoder", "image", IMAGES).as_numpy("code").shape == (3, 12)


def test_only_payloads_of_this_contract_are_classified(
    client: Client, tiny_bundle: Bundle, expected: tuple[list[bytes], list[str]]
) -> None:
    good = expected[0][0]
    other = replace(tiny_bundle.manifest.contract, encoder_digest="0" * 64)
    foreign = encode_payload(np.zeros(other.code_bytes, np.uint8), other)
    damaged = good[:30] + bytes([good[30] ^ 1]) + good[31:]
    for payload, message in (
        (foreign, f"contract mismatch: payload {other.contract_id}"),
        (damaged, "CRC-32"),
        (good[:-1], "but its header says"),
        (b"", "not a payload"),
    ):
        with pytest.raises(InferenceServerException, match=message) as raised:
            infer(client, "classifier", "payload", payload_tensor([good, payload]), datatype="BYTES")
        assert status_of(raised.value) in {"400", "INVALID_ARGUMENT"}
        answer = infer(client, "classifier", "payload", payload_tensor([good]), datatype="BYTES")
        assert [label.decode() for label in answer.as_numpy("label")] == expected[1][:1]


def test_allowed_hosts_are_answered(server: ServerProcess) -> None:
    for host, status in {"gateway.example:80": 200, "other.example": 200, "evil.example": 403}.items():
        assert ask(server.http_address, LIVE.replace(b"localhost", host.encode())).status == status


def test_clients_cannot_unload_models(client: Client) -> None:
    for call in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException) as raised:
            call("encoder")
        assert status_of(raised.value) in {"404", "UNIMPLEMENTED"}
    assert client.is_model_ready("encoder")


def test_grpc_accepts_typed_contents(server: ServerProcess, expected: tuple[list[bytes], list[str]]) -> None:
    """Some clients send typed contents; tritonclient always sends raw ones."""

    def call(datatype: str, shape: list[int], **contents: Any) -> messages.ModelInferResponse:
        tensor = messages.ModelInferRequest.InferInputTensor(
            name="payload" if datatype == "BYTES" else "code",
            datatype=datatype,
            shape=shape,
            contents=messages.InferTensorContents(**contents),
        )
        return infer_by_stub(messages.ModelInferRequest(model_name="classifier", inputs=[tensor]))

    with grpc.insecure_channel(server.grpc_address) as channel:
        infer_by_stub = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelInferResponse.FromString,
        )
        code = list(expected[0][0][22:-4])
        by_code = call("UINT8", [1, 12], uint_contents=code)
        by_payload = call("BYTES", [1], bytes_contents=expected[0][:1])
        assert by_code.raw_output_contents == by_payload.raw_output_contents
        with pytest.raises(grpc.RpcError) as raised:
            call("UINT8", [1, 12], uint_contents=[256, *code[1:]])
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError) as raised:
            call("UINT8", [1, 12], int_contents=code)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_grpc_message_that_is_too_large_is_refused(server: ServerProcess) -> None:
    with server.grpc() as client:
        with pytest.raises(InferenceServerException) as raised:
            infer(client, "encoder", "image", np.zeros((40, 32, 48, 3), np.uint8))
        assert status_of(raised.value) == "RESOURCE_EXHAUSTED"
        assert infer(client, "encoder", "image", IMAGES).as_numpy("code").shape == (3, 12)


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False])
def test_json_and_binary_tensors_mix(server: ServerProcess, binary_input: bool, binary_output: bool) -> None:
    tensor = tritonclient.http.InferInput("image", list(IMAGES.shape), "UINT8")
    tensor.set_data_from_numpy(IMAGES, binary_data=binary_input)
    wanted = tritonclient.http.InferRequestedOutput("code", binary_data=binary_output)
    with server.http() as client:
        answer = client.infer("encoder", [tensor], outputs=[wanted], request_id="seven")
        whole = infer(client, "encoder", "image", IMAGES)
    (output,) = answer.get_response()["outputs"]
    assert ("data" in output, "binary_data_size" in output.get("parameters", {})) == (
        not binary_output,
        binary_output,
    )
    assert answer.get_response()["id"] == "seven"
    np.testing.assert_array_equal(answer.as_numpy("code"), whole.as_numpy("code"))


class RawClient:
    """Requests over HTTP without a client library, on one connection."""

    def __init__(self, server: ServerProcess) -> None:
        self.connection = http.client.HTTPConnection(server.http_address, timeout=PATIENCE_SECONDS)

    def post(self, body: Any, path: str = "/v2/models/classifier/infer", **headers: str) -> tuple[int, Any]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request("POST", path, content, named)
        answer = self.connection.getresponse()
        return answer.status, json.loads(answer.read())


@pytest.fixture
def raw(server: ServerProcess) -> Iterator[RawClient]:
    client = RawClient(server)
    client.connection.connect()
    first = client.connection.sock
    yield client
    assert client.connection.sock is first  # the server did not close it
    assert client.post(request_of(**CODE))[0] == 200
    client.connection.close()


def request_of(**tensor: Any) -> dict[str, Any]:
    return {"inputs": [tensor]}


def test_json_without_any_extension(raw: RawClient, expected: tuple[list[bytes], list[str]]) -> None:
    code = list(expected[0][0][22:-4])
    status, flat = raw.post(request_of(name="code", datatype="UINT8", shape=[1, 12], data=code))
    assert status == 200
    assert flat["model_name"] == "classifier"
    assert {output["name"]: output["data"] for output in flat["outputs"]}["label"] == expected[1][:1]
    assert raw.post(request_of(name="code", datatype="UINT8", shape=[1, 12], data=[code])) == (200, flat)
    text = base64.b64encode(expected[0][0]).decode()
    assert raw.post(request_of(name="payload", datatype="BYTES", shape=[1], data=[text])) == (200, flat)


CODE = {"name": "code", "datatype": "UINT8", "shape": [1, 12], "data": [0] * 12}
GARBAGE: dict[str, Any] = {
    "no JSON": b"\x00\xff garbage",
    "nothing": b"",
    "a list": [],
    "no inputs": {},
    "inputs that are none": {"inputs": 7},
    "no tensor": {"inputs": []},
    "two tensors": {"inputs": [CODE, CODE]},
    "a name that is none": request_of(**{**CODE, "name": 3}),
    "a shape of fractions": request_of(**{**CODE, "shape": [1.5, 12]}),
    "no data": request_of(name="code", datatype="UINT8", shape=[1, 12]),
    "data and binary data": request_of(**CODE, parameters={"binary_data_size": 12}),
    "fractions": request_of(**{**CODE, "data": [0.5] * 12}),
    "texts": request_of(**{**CODE, "data": ["0"] * 12}),
    "truths": request_of(**{**CODE, "data": [True] * 12}),
    "256": request_of(**{**CODE, "data": [256] * 12}),
    "a number beyond all types": request_of(**{**CODE, "data": [2**70] + [0] * 11}),
    "uneven lists": request_of(**{**CODE, "data": [[0] * 5, [0] * 7]}),
    "too few values": request_of(**{**CODE, "data": [0] * 11}),
    "deep lists": b'{"inputs":[' + b"[" * 5000 + b"]" * 5000 + b"]}",
    "payloads that are no base64": request_of(name="payload", datatype="BYTES", shape=[1], data=["?"]),
    "payloads that are numbers": request_of(name="payload", datatype="BYTES", shape=[1], data=[5]),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_garbage_body_is_a_bad_request(raw: RawClient, kind: str) -> None:
    status, answer = raw.post(GARBAGE[kind])
    assert status == 400
    assert answer["error"]
    assert "\n" not in answer["error"]


def test_binary_tensors_must_have_the_declared_length(raw: RawClient) -> None:
    def post(content: bytes, size: int, length: Any = NOTHING) -> tuple[int, Any]:
        tensor = request_of(
            name="payload", datatype="BYTES", shape=[1], parameters={"binary_data_size": size}
        )
        text = json.dumps(tensor).encode()
        header = str(len(text) if length is NOTHING else length)
        return raw.post(text + content, Inference_Header_Content_Length=header)

    for answer in (
        post(b"", 5),
        post(b"\x00" * 5, 4),
        post(b"\x00" * 3, 3),  # less than the length of one element
        post(b"\xff" * 8, 8),  # an element of four GiB
        post(b"\x01\x00\x00\x00a\x01\x00\x00\x00b", 10),  # two elements
        post(b"", 0, 99999),
        post(b"", 0, -1),
        post(b"", 0, "x"),
        post(b"", 0, "9" * 5000),  # more digits than Python converts
        post(b"", -4),
    ):
        assert answer[0] == 400
        assert answer[1]["error"]


def test_an_http_body_that_is_too_large_is_refused(raw: RawClient) -> None:
    most = 4 * 32 * 48 * 3 * 5 + 2**16
    status, answer = raw.post(b" " * (most + 1))
    message = f"the body is larger than {most} bytes, the limit for one request"
    assert (status, answer) == (413, {"error": message})
    chunks = iter([b" " * 2**16] * (most // 2**16 + 2))  # a body whose length nobody announced
    headers = {"Transfer-Encoding": "chunked"}
    raw.connection.request("POST", "/v2/models/encoder/infer", chunks, headers, encode_chunked=True)
    response = raw.connection.getresponse()
    assert (response.status, "error" in json.loads(response.read())) == (413, True)


def test_unsupported_requests_get_the_protocols_errors(raw: RawClient) -> None:
    assert raw.post({}, "/v1/models/encoder:predict") == (404, {"error": "Not Found"})
    assert raw.post({}, "/v2/models/encoder") == (405, {"error": "Method Not Allowed"})
    assert raw.post(b"", Content_Encoding="gzip")[0] == 415


def test_metrics_count_what_was_answered_and_refused(server: ServerProcess, client: Client) -> None:
    before = server.metrics()
    infer(client, "encoder", "image", IMAGES)
    for _ in range(2):
        with pytest.raises(InferenceServerException):
            infer(client, "encoder", "image", IMAGES[:, :8])
    with pytest.raises(InferenceServerException):
        infer(client, "nobody", "image", IMAGES)
    after = server.metrics()

    def grown(name: str, model: str, reason: str = "") -> float:
        key = (name, model, reason)
        return after[key] - before.get(key, 0)

    assert grown("ccr_deploy_images_total", "encoder") == 3
    assert grown("ccr_deploy_run_images_count", "encoder") == 1
    assert grown("ccr_deploy_run_seconds_count", "encoder") == 1
    assert grown("ccr_deploy_refused_total", "encoder", "invalid") == 2
    assert grown("ccr_deploy_refused_total", "", "unknown model") == 1
    assert grown("request_predict_seconds_count", "encoder") == 3
    assert after["ccr_deploy_waiting_images", "encoder", ""] == 0


def test_malformed_protobufs_are_invalid_arguments(server: ServerProcess) -> None:
    """Bytes that are no protobuf, and protobufs that contradict themselves."""
    tensor = messages.ModelInferRequest.InferInputTensor(name="code", datatype="UINT8", shape=[1, 12])
    filled = messages.ModelInferRequest.InferInputTensor(
        name="code", datatype="UINT8", shape=[1, 12], contents={"uint_contents": [0] * 12}
    )
    whole = messages.ModelInferRequest(
        model_name="classifier", inputs=[tensor], raw_input_contents=[bytes(12)]
    ).SerializeToString()
    contradictions = [
        messages.ModelInferRequest(model_name="classifier", inputs=inputs, raw_input_contents=contents)
        for inputs, contents in (
            ([], []),
            ([], [bytes(12)]),
            ([tensor], []),
            ([tensor], [bytes(11)]),
            ([tensor], [bytes(12)] * 2),
            ([tensor, tensor], [bytes(12)]),
            ([filled], [bytes(12)]),
        )
    ]
    wrong = [b"\xff" * 50, whole[:-1], b"\x0a\x02\xff\xff", b"\x0a\x02\xff\xfe" + whole]
    with grpc.insecure_channel(server.grpc_address) as channel:
        infer_bytes = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        metadata_bytes = channel.unary_unary("/inference.GRPCInferenceService/ModelMetadata")
        assert infer_bytes(whole)
        for sent in (*wrong, *(message.SerializeToString() for message in contradictions)):
            with pytest.raises(grpc.RpcError) as raised:
                infer_bytes(sent)
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT, sent
            assert raised.value.details()
        with pytest.raises(grpc.RpcError) as raised:
            metadata_bytes(b"\xff" * 50)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert infer_bytes(whole)
