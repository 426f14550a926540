"""What a deployment is made from, checked before anything is made."""

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
"""Where the engine store's volume is mounted."""
TEMPORARY = "/tmp"  # noqa: S108 -- a volume of the pod's own
"""Where a volume for temporary files is mounted: nothing else of a container can be written."""

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
    """One server, replicated.

    `name` is what everything is named after; `image` holds ccr-deploy and, at the path `bundle`, the bundle.
    `target` is the name of one that ships with ccr-deploy; where it computes on a GPU, every replica takes
    one GPU. Replicas are between `replicas_min` and `replicas_max`, so that they use `cpu_percent` of their
    `cores` on average.

    Engines are built into a volume of `engine_store_gib` by each pod, and are gone with it (`pod`), or into
    a claim that outlives the pod (`claim`), which one replica alone can have. `storage_class` is the claim's,
    by default the cluster's own. Pods run on nodes that have all `node_labels`.

    Raises:
        WrongUsageError: a value is wrong; the message names it.
        TargetError: there is no such target.
    """

    name: str
    image: str
    target: str
    bundle: str = "/bundle"
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

    def __post_init__(self) -> None:
        problems = chain(self._names(), self._target(), self._bundle(), self._numbers(), self._store())
        if first := next(problems, None):
            raise WrongUsageError(first)

    @property
    def loaded_target(self) -> Target:
        """The target itself."""
        return load_target(self.target)

    @property
    def gpus(self) -> int:
        """How many GPUs a replica takes: a server computes on one, or on none."""
        return 1 if self.loaded_target.uses_gpu else 0

    @property
    def scales(self) -> bool:
        """Whether the number of replicas changes with the load."""
        return self.replicas_min < self.replicas_max

    def _names(self) -> Iterator[str]:
        if not _NAME.fullmatch(self.name):
            yield (
                f"name {self.name!r}: not a DNS label: 1 to 53 of a-z, 0-9 and -, the first a letter, "
                "the last no -"
            )
        image = _IMAGE.fullmatch(self.image)
        if not image or len(image["path"]) > 255:
            yield f"image {self.image!r}: not an image's name, as registry/name:tag is one"
        elif not image["digest"] and image["tag"] in {None, "latest"}:
            yield (
                f"image {self.image!r}: replicas could run different images: name a tag other than latest, "
                "or a digest"
            )
        for key, value in self.node_labels.items():
            if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
                yield f"node label {key!r}: {value!r}: not a label that a node can have"

    def _target(self) -> Iterator[str]:
        if self.target.endswith(".toml"):
            shipped = ", ".join(sorted(target_files()))
            yield f"target {self.target}: a pod does not have this file: name one of {shipped}"
        if self.loaded_target.is_reference:
            yield f"target {self.target}: the reference needs PyTorch, which no image carries"

    def _bundle(self) -> Iterator[str]:
        path = PurePosixPath(self.bundle)
        plain = self.bundle == str(path) and path.is_absolute() and len(path.parts) > 1
        if not plain or ".." in path.parts or not self.bundle.isprintable():
            yield f"bundle {self.bundle!r}: not an absolute path in the image, as /bundle is"
        for mounted in (ENGINES, TEMPORARY):
            if PurePosixPath(mounted) in (path, *path.parents):
                yield f"bundle {self.bundle!r}: a volume at {mounted} would hide it"

    def _numbers(self) -> Iterator[str]:
        for name, least, most in (
            ("replicas_min", 1, 1000),
            ("replicas_max", self.replicas_min, 1000),
            ("cpu_percent", 1, 100),
            ("cores", 1, 1024),
            ("memory_mib", 256, 1 << 24),
            ("engine_store_gib", 1, 1 << 14),
            ("http_port", 1024, 65535),  # lower ones need privileges
            ("grpc_port", 1024, 65535),
        ):
            if not least <= getattr(self, name) <= most:
                yield f"{name} {getattr(self, name)}: must be {least} to {most}"
        if self.http_port == self.grpc_port:
            yield f"grpc_port {self.grpc_port}: HTTP has it already"

    def _store(self) -> Iterator[str]:
        if self.engine_store not in {"pod", "claim"}:
            yield f"engine_store {self.engine_store!r}: must be pod or claim"
        if self.engine_store == "claim" and self.replicas_max > 1:
            yield (
                f"replicas_max {self.replicas_max}: an engine store in a claim is for one replica alone: "
                "let each pod have its own, or take one replica"
            )
        if self.storage_class is not None and self.engine_store == "pod":
            yield f"storage_class {self.storage_class!r}: only an engine store in a claim has one"
        if self.storage_class is not None and not _STORAGE_CLASS.fullmatch(self.storage_class):
            yield f"storage_class {self.storage_class!r}: not a storage class's name"
