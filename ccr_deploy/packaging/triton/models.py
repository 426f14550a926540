"""The five models of a repository.

::

    image_to_label     image ──encoder──> code ──classifier──> logits        ensembles
    payload_to_label   payload ──payload──> code ──classifier──> logits

    encoder            image   uint8 [N, H, W, 3]   -> code    uint8 [N, bytes]
    payload            payload BYTES [N, 1]         -> code    uint8 [N, bytes]
    classifier         code    uint8 [N, bytes]     -> logits  float32 [N, classes]

The names of the classes belong to ``logits``: Triton's classification extension returns them.

An ensemble names its steps' version, so that a request never goes through two versions; and its steps
serve the version before, so that the ensemble of that version answers until the new one is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.packaging.triton.model_config import (
    DataType,
    DynamicBatching,
    EnsembleScheduling,
    EnsembleStep,
    InstanceGroup,
    Kind,
    LatestVersions,
    ModelConfig,
    ModelInput,
    ModelOutput,
    ModelParameter,
    ModelWarmup,
    QueuePolicy,
    VersionPolicy,
    WarmupInput,
)

if TYPE_CHECKING:
    from ccr_deploy.bundle.manifest import Manifest
    from ccr_deploy.packaging.triton.served_stage import ServedStage

PAYLOAD, IMAGE_TO_LABEL, PAYLOAD_TO_LABEL = "payload", "image_to_label", "payload_to_label"
LABELS_FILE = "labels.txt"
_QUEUE_DELAY_MICROSECONDS = 1000
"""How long a lone request waits for others: little beside a run of the encoder."""
_WAITING_BATCHES = 8
"""How many full batches may wait. Further requests are refused at once, instead of answered too late."""
_SERVED_VERSIONS = VersionPolicy(LatestVersions(2))
_NEWEST_VERSION = VersionPolicy(LatestVersions(1))


def repository_models(
    manifest: Manifest, encoder: ServedStage, classifier: ServedStage, version: int
) -> tuple[ModelConfig, ...]:
    """The configurations, those that others are made of first."""
    image = ModelInput("image", DataType.TYPE_UINT8, manifest.input_shapes("encoder")["image"])
    code_in = ModelInput("code", DataType.TYPE_UINT8, manifest.input_shapes("classifier")["code"])
    code_out = ModelOutput("code", code_in.data_type, code_in.dims)
    payload = ModelInput("payload", DataType.TYPE_STRING, (1,))
    logits = ModelOutput("logits", DataType.TYPE_FP32, (manifest.model.classifier.classes,), LABELS_FILE)
    most = min(encoder.max_batch, classifier.max_batch)
    return (
        _engine_model(encoder, image, code_out),
        _engine_model(classifier, code_in, logits),
        _payload_model(payload, code_out, classifier.max_batch),
        _ensemble(IMAGE_TO_LABEL, image, ("encoder", "classifier"), logits, version=version, max_batch=most),
        _ensemble(
            PAYLOAD_TO_LABEL,
            payload,
            (PAYLOAD, "classifier"),
            logits,
            version=version,
            max_batch=classifier.max_batch,
        ),
    )


def _engine_model(stage: ServedStage, source: ModelInput, result: ModelOutput) -> ModelConfig:
    warm = {source.name: WarmupInput(source.data_type, source.dims)}
    threads = {"intra_op_thread_count": ModelParameter(str(stage.threads))} if stage.threads else {}
    return ModelConfig(
        name=stage.stage,
        platform="tensorrt_plan" if stage.backend == "tensorrt" else "onnxruntime_onnx",
        backend=stage.backend,
        default_model_filename=stage.model_file,
        cc_model_filenames=stage.capabilities,
        max_batch_size=stage.max_batch,
        input=(source,),
        output=(result,),
        version_policy=_SERVED_VERSIONS,
        instance_group=(InstanceGroup(1, Kind.KIND_GPU if stage.backend == "tensorrt" else Kind.KIND_CPU),),
        dynamic_batching=_batching(stage.max_batch, _QUEUE_DELAY_MICROSECONDS),
        model_warmup=tuple(ModelWarmup(f"batch {n}", n, warm) for n in sorted({1, stage.max_batch})),
        parameters=threads,
    )


def _payload_model(source: ModelInput, result: ModelOutput, max_batch: int) -> ModelConfig:
    """The step has nothing to gain from waiting; what waits anyway is taken together."""
    return ModelConfig(
        name=PAYLOAD,
        backend="python",
        max_batch_size=max_batch,
        input=(source,),
        output=(result,),
        version_policy=_SERVED_VERSIONS,
        instance_group=(InstanceGroup(1, Kind.KIND_CPU),),
        dynamic_batching=_batching(max_batch, 0),
    )


def _batching(max_batch: int, delay_microseconds: int) -> DynamicBatching:
    return DynamicBatching(delay_microseconds, QueuePolicy(_WAITING_BATCHES * max_batch))


def _ensemble(
    name: str,
    source: ModelInput,
    models: tuple[str, str],
    result: ModelOutput,
    *,
    version: int,
    max_batch: int,
) -> ModelConfig:
    """From `source` by one model to a code, and by another to the `result`."""
    first, second = models
    steps = (
        EnsembleStep(first, version, {source.name: source.name}, {"code": "code"}),
        EnsembleStep(second, version, {"code": "code"}, {result.name: result.name}),
    )
    return ModelConfig(
        name=name,
        platform="ensemble",
        max_batch_size=max_batch,
        input=(source,),
        output=(result,),
        version_policy=_NEWEST_VERSION,
        ensemble_scheduling=EnsembleScheduling(steps),
    )
