"""The settings of a deployment, validated when they are created."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import chain
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from ccr_deploy.errors import WrongUsageError
from ccr_deploy.targets.schema import load_target, target_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ccr_deploy.targets.schema import Target

ENGINES = "/engines"
"""The mount path of the engine store's volume."""
TEMPORARY = "/tmp"  # noqa: S108 -- a volume of the pod alone
"""The mount path of the volume for temporary files; the rest of a container is read-only."""
IMAGES = "/images"
"""The mount path of the images of a verification."""
VERIFICATION = "/verification"
"""The mount path of the volume of a verification's engines and results."""

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,51}[a-z0-9])?")
_HOST = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?"
_PATH = r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?P<path>({_HOST}/)?{_PATH}(/{_PATH})*)(:(?P<tag>\w[\w.-]{{0,127}}))?(@sha256:(?P<digest>[0-9a-f]{{64}}))?",
    re.ASCII,
)
_STORAGE_CLASS = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_LABEL_NAME = r"[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = re.compile(rf"([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_LABEL_NAME}", re.ASCII)
_LABEL_VALUE = re.compile(rf"({_LABEL_NAME})?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class DeploymentSettings:
    """The settings of one server with replicas.

    Attributes:
        name: the name of the server and the prefix of its objects' names.
        image: the container image, with ccr-deploy and the bundle.
        target: the name of a target that ccr-deploy ships. If it uses a GPU, every replica takes one.
        bundle: the path of the bundle in the image.
        golden: the path of a golden file in the image. Each pod verifies its engines with it, and its server
            requires verified engines. None for pods that do not verify.
        replicas_min: the fewest replicas.
        replicas_max: the most replicas.
        cpu_percent: the average use of `cores`, in percent, that the autoscaler aims at.
        cores: processor cores of each replica.
        memory_mib: memory of each replica, in MiB.
        engine_store: `pod` for a volume that is deleted with the pod, which builds its engines again, or
            `claim` for a claim that outlives the pod; only one replica can use a claim.
        engine_store_gib: size of the engine store, in GiB.
        storage_class: storage class of the claim; the cluster's default if None.
        node_labels: labels that the pods' nodes must have.
        http_port: the HTTP port.
        grpc_port: the gRPC port.
        verify_shards: the number of pods that verify the engines on the images in the claim NAME-images; 0
            for no verification.

    Raises:
        WrongUsageError: if a value is invalid; the message names it.
        TargetError: if the target does not exist.
    """

    name: str
    image: str
    target: str
    bundle: str = "/bundle"
    golden: str | None = None
    replicas_min: int = 2
    replicas_max: int = 4
    cpu_percent: int = 70
    cores: int = 2
    memory_mib: int = 4096
    engine_store: Literal["pod", "claim"] = "pod"
    engine_store_gib: int = 4
    storage_class: str | None = None
    node_labels: Mapping[str, str] = field(default_factory=dict)
    http_port: int = 8080
    grpc_port: int = 9000
    verify_shards: int = 0

    def __post_init__(self) -> None:
        problems = chain(self._names(), self._target(), self._files(), self._numbers(), self._store())
        if first := next(problems, None):
            raise WrongUsageError(first)

    @property
    def loaded_target(self) -> Target:
        """The loaded target."""
        return load_target(self.target)

    @property
    def gpus(self) -> int:
        """The number of GPUs of a replica, 0 or 1."""
        return 1 if self.loaded_target.uses_gpu else 0

    @property
    def scales(self) -> bool:
        """Whether the number of replicas changes with the load."""
        return self.replicas_min < self.replicas_max

    def _names(self) -> Iterator[str]:
        if not _NAME.fullmatch(self.name):
            yield (
                f"name {self.name!r}: not a DNS label: use 1 to 53 of a-z, 0-9 and -, starting with a letter "
                "and not ending with -"
            )
        image = _IMAGE.fullmatch(self.image)
        if not image or len(image["path"]) > 255:
            yield f"image {self.image!r}: not a valid image name: use registry/name:tag"
        elif not image["digest"] and image["tag"] in {None, "latest"}:
            yield (
                f"image {self.image!r}: replicas could run different images: name a tag other than latest, "
                "or a digest"
            )
        for key, value in self.node_labels.items():
            if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
                yield f"node label {key!r}: {value!r}: not a valid Kubernetes label"

    def _target(self) -> Iterator[str]:
        if self.target.endswith(".toml"):
            shipped = ", ".join(sorted(target_files()))
            yield f"target {self.target}: target files are not in the image: use one of {shipped}"
        if self.loaded_target.is_reference:
            yield f"target {self.target}: needs PyTorch, which the images do not contain: use another target"

    def _files(self) -> Iterator[str]:
        of_verification = (IMAGES, VERIFICATION) if self.verify_shards else ()
        for name, text, example in (
            ("bundle", self.bundle, "/bundle"),
            ("golden", self.golden, "/model.golden"),
        ):
            if text is None:
                continue
            path = PurePosixPath(text)
            plain = text == str(path) and path.is_absolute() and len(path.parts) > 1
            if not plain or ".." in path.parts or not text.isprintable():
                yield f"{name} {text!r}: not an absolute path in the image, such as {example}"
            for mounted in (ENGINES, TEMPORARY, *of_verification):
                if PurePosixPath(mounted) in (path, *path.parents):
                    yield f"{name} {text!r}: hidden by the volume at {mounted}: use another path"

    def _numbers(self) -> Iterator[str]:
        for name, least, most in (
            ("replicas_min", 1, 1000),
            ("replicas_max", self.replicas_min, 1000),
            ("cpu_percent", 1, 100),
            ("cores", 1, 1024),
            ("memory_mib", 256, 1 << 24),
            ("engine_store_gib", 1, 1 << 14),
            ("http_port", 1024, 65535),  # lower ports need privileges
            ("grpc_port", 1024, 65535),
            # The host name of a pod, with the Job's name and the index, has at most 63 characters.
            ("verify_shards", 0, 1000),
        ):
            if not least <= getattr(self, name) <= most:
                yield f"{name} {getattr(self, name)}: must be {least} to {most}"
        if self.http_port == self.grpc_port:
            yield f"grpc_port {self.grpc_port}: already used by http_port"

    def _store(self) -> Iterator[str]:
        if self.engine_store not in {"pod", "claim"}:
            yield f"engine_store {self.engine_store!r}: must be pod or claim"
        if self.engine_store == "claim" and self.replicas_max > 1:
            yield (
                f"replicas_max {self.replicas_max}: only one replica can use an engine store in a claim: "
                'set replicas_max to 1, or engine_store to "pod"'
            )
        uses_claim = self.engine_store == "claim" or self.verify_shards
        if self.storage_class is not None and not uses_claim:
            yield f"storage_class {self.storage_class!r}: requires engine_store claim or verify_shards"
        if self.storage_class is not None and not _STORAGE_CLASS.fullmatch(self.storage_class):
            yield f"storage_class {self.storage_class!r}: not a valid name of a storage class"
