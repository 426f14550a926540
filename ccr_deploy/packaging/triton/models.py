"""The five models of a repository.

::

    image_to_label     image ──encoder──> code ──classifier──> logits        ensembles
    payload_to_label   payload ──payload──> code ──classifier──> logits

    encoder            image   uint8 [N, H, W, 3]   -> code    uint8 [N, bytes]
    payload            payload BYTES [N, 1]         -> code    uint8 [N, bytes]
    classifier         code    uint8 [N, bytes]     -> logits  float32 [N, classes]

The names of the classes belong to ``logits``: Triton's classification extension returns them.

The configurations are plain dictionaries and lists under the names of NVIDIA's ``model_config.proto``, in the
order of ``config.pbtxt``; the tests read them with the classes generated from it.

An ensemble names its steps' version, so that a request never goes through two versions; and its steps
serve the version before, so that the ensemble of that version answers until the new one is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.packaging.triton.pbtxt import Symbol, entries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccr_deploy.bundle.manifest import Manifest
    from ccr_deploy.packaging.triton.pbtxt import Message
    from ccr_deploy.packaging.triton.served_stage import ServedStage

PAYLOAD, IMAGE_TO_LABEL, PAYLOAD_TO_LABEL = "payload", "image_to_label", "payload_to_label"
LABELS_FILE = "labels.txt"
_QUEUE_DELAY_MICROSECONDS = 1000
"""How long a lone request waits for others: little beside a run of the encoder."""
_WAITING_BATCHES = 8
"""How many full batches may wait. Further requests are refused at once, instead of answered too late."""
_SERVED_VERSIONS, _NEWEST_VERSION = 2, 1
"""How many of the highest version numbers a step and an ensemble serve."""


def repository_models(
    manifest: Manifest, encoder: ServedStage, classifier: ServedStage, version: int
) -> tuple[Message, ...]:
    """Return the models' configurations, those that others are made of first.

    Args:
        manifest: the bundle's, which says the shapes that go in and out.
        encoder: what Triton runs as the encoder.
        classifier: what Triton runs as the classifier.
        version: the number of the version folders, which the ensembles name.
    """
    image = _tensor("image", "TYPE_UINT8", manifest.input_shapes("encoder")["image"])
    code = _tensor("code", "TYPE_UINT8", manifest.input_shapes("classifier")["code"])
    payload = _tensor("payload", "TYPE_STRING", (1,))
    logits = _tensor("logits", "TYPE_FP32", (manifest.model.classifier.classes,))
    logits["label_filename"] = LABELS_FILE
    either = min(encoder.max_batch, classifier.max_batch)
    return (
        _engine_model(encoder, image, code),
        _engine_model(classifier, code, logits),
        _payload_model(payload, code, classifier.max_batch),
        _ensemble(IMAGE_TO_LABEL, "encoder", image, logits, version=version, max_batch=either),
        _ensemble(
            PAYLOAD_TO_LABEL, PAYLOAD, payload, logits, version=version, max_batch=classifier.max_batch
        ),
    )


def _tensor(name: str, data_type: str, dims: Sequence[int]) -> Message:
    """An input or output; `dims` are those behind the batch."""
    return {"name": name, "data_type": Symbol(data_type), "dims": list(dims)}


def _model(
    name: str, source: Message, result: Message, max_batch: int, versions: int = _SERVED_VERSIONS
) -> Message:
    """What every model has."""
    return {
        "name": name,
        "max_batch_size": max_batch,
        "input": [source],
        "output": [result],
        "version_policy": {"latest": {"num_versions": versions}},
    }


def _engine_model(stage: ServedStage, source: Message, result: Message) -> Message:
    tensorrt = stage.backend == "tensorrt"
    zeros = {"data_type": source["data_type"], "dims": source["dims"], "zero_data": True}
    threads = {"intra_op_thread_count": {"string_value": str(stage.threads)}} if stage.threads else {}
    return {
        **_model(stage.stage, source, result, stage.max_batch),
        "platform": "tensorrt_plan" if tensorrt else "onnxruntime_onnx",
        "backend": stage.backend,
        "default_model_filename": stage.model_file,
        "cc_model_filenames": entries(stage.capabilities),
        # On every GPU that Triton sees, or once on the CPU.
        "instance_group": [{"count": 1, "kind": Symbol("KIND_GPU" if tensorrt else "KIND_CPU")}],
        "dynamic_batching": _batching(stage.max_batch, _QUEUE_DELAY_MICROSECONDS),
        # Run through every instance before the model counts as ready.
        "model_warmup": [
            {"name": f"batch {n}", "batch_size": n, "inputs": entries({source["name"]: zeros})}
            for n in sorted({1, stage.max_batch})
        ],
        "parameters": entries(threads),
    }


def _payload_model(source: Message, result: Message, max_batch: int) -> Message:
    """The step has nothing to gain from waiting; what waits anyway is taken together."""
    return {
        **_model(PAYLOAD, source, result, max_batch),
        "backend": "python",
        "instance_group": [{"count": 1, "kind": Symbol("KIND_CPU")}],
        "dynamic_batching": _batching(max_batch, 0),
    }


def _batching(max_batch: int, delay_microseconds: int) -> Message:
    return {
        "max_queue_delay_microseconds": delay_microseconds,
        "default_queue_policy": {"max_queue_size": _WAITING_BATCHES * max_batch},
    }


def _ensemble(
    name: str, first: str, source: Message, result: Message, *, version: int, max_batch: int
) -> Message:
    """From `source` by the `first` model to a code, and by the classifier to the `result`."""
    steps = ((first, source["name"], "code"), ("classifier", "code", result["name"]))
    scheduled = [
        {
            "model_name": model,
            "model_version": version,
            "input_map": entries({taken: taken}),
            "output_map": entries({given: given}),
        }
        for model, taken, given in steps
    ]
    model = _model(name, source, result, max_batch, _NEWEST_VERSION)
    return {**model, "platform": "ensemble", "ensemble_scheduling": {"step": scheduled}}
