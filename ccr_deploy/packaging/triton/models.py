"""The five models of a repository.

::

    image_to_label     image ──encoder──> code ──classifier──> logits        ensembles
    payload_to_label   payload ──payload──> code ──classifier──> logits

    encoder            image   uint8 [N, H, W, 3]   -> code    uint8 [N, bytes]
    payload            payload BYTES [N, 1]         -> code    uint8 [N, bytes]
    classifier         code    uint8 [N, bytes]     -> logits  float32 [N, classes]

The class names are the labels of ``logits``: Triton's classification extension returns them.

The configurations are plain dictionaries and lists with the field names of NVIDIA's ``model_config.proto``,
in the order of ``config.pbtxt``. The tests parse them with the classes generated from it.

An ensemble names the version of its steps, so that a request never uses two versions. Steps also serve the
version before, so that the old ensemble works until the new one is loaded.
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
"""How long a request waits for others: short compared with a run of the encoder."""
_WAITING_BATCHES = 8
"""How many full batches may wait. Further requests are rejected at once, not answered too late."""
_SERVED_VERSIONS, _NEWEST_VERSION = 2, 1
"""How many of the highest version numbers Triton serves of a step and of an ensemble."""


def repository_models(
    manifest: Manifest, encoder: ServedStage, classifier: ServedStage, version: int
) -> tuple[Message, ...]:
    """Return the models' configurations, ensembles after their steps.

    Args:
        manifest: the bundle's manifest, for the shapes of inputs and outputs.
        encoder: the files and settings of the encoder.
        classifier: the files and settings of the classifier.
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
    """Return an input or output; `dims` is the shape without the batch."""
    return {"name": name, "data_type": Symbol(data_type), "dims": list(dims)}


def _model(
    name: str, source: Message, result: Message, max_batch: int, versions: int = _SERVED_VERSIONS
) -> Message:
    """Return the fields that every model has."""
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
        # One instance on every visible GPU, or one on the CPU.
        "instance_group": [{"count": 1, "kind": Symbol("KIND_GPU" if tensorrt else "KIND_CPU")}],
        "dynamic_batching": _batching(stage.max_batch, _QUEUE_DELAY_MICROSECONDS),
        # Triton runs these through every instance before it reports the model as ready.
        "model_warmup": [
            {"name": f"batch {n}", "batch_size": n, "inputs": entries({source["name"]: zeros})}
            for n in sorted({1, stage.max_batch})
        ],
        "parameters": entries(threads),
    }


def _payload_model(source: Message, result: Message, max_batch: int) -> Message:
    """Return the payload step, without a queue delay: it is too fast to gain from waiting for a batch."""
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
    """Return an ensemble: the `first` model converts `source` to a code, the classifier that to `result`."""
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
