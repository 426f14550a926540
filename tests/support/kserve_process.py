"""Validate mappings against KServe's typed classes: unknown and missing fields are refused.

The SDK's own reader drops unknown fields. `tests.support.kserve_types` runs this module in a child process:
the SDK and tritonclient cannot be imported into one process, since both register the protocol's messages.
"""

from __future__ import annotations

import re
from typing import Any

import kserve.models
import kubernetes.client.models

from ccr_deploy.core.child_process import Owner

_SCALARS: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "bool": bool,
    "object": (str, int),
    "ResourceQuantity": str,
}


def typed(content: Any, kind: str, where: str = "") -> Any:
    """Convert `content` to the class named `kind`, or to another type that KServe's classes name."""
    where = where or kind
    if parts := re.fullmatch(r"[Ll]ist\[(.+)\]", kind):
        assert isinstance(content, list), f"{where}: not a list"
        return [typed(part, parts[1], f"{where}[{index}]") for index, part in enumerate(content)]
    if parts := re.fullmatch(r"[Dd]ict[(\[]str, (.+)[)\]]", kind):
        assert isinstance(content, dict), f"{where}: not a mapping"
        return {name: typed(part, parts[1], f"{where}.{name}") for name, part in content.items()}
    if kind in _SCALARS:
        right = isinstance(content, _SCALARS[kind]) and isinstance(content, bool) == (kind == "bool")
        assert right, f"{where}: {content!r} is not of type {kind}"
        return content
    assert isinstance(content, dict), f"{where}: not a mapping"
    known = _class(kind)
    attributes = {key: attribute for attribute, key in known.attribute_map.items()}
    unknown = sorted(set(content) - set(attributes))
    assert not unknown, f"{where}: unknown {unknown}"
    values = {
        attributes[key]: typed(value, known.openapi_types[attributes[key]], f"{where}.{key}")
        for key, value in content.items()
    }
    return known(**values)  # raises ValueError if a required field is missing


def _class(kind: str) -> Any:
    """Return a class of KServe or Kubernetes; KServe names some of the latter with their Go package."""
    name = re.sub(r"^K8sIoApi(Apps|AutoscalingV2)", "", kind)
    for module in (kserve.models, kubernetes.client.models):
        if hasattr(module, name):
            return getattr(module, name)
    raise AssertionError(f"KServe has no class {kind}")


def serve() -> None:
    """Answer each mapping and class name with the name of the resulting object's class, or with the error."""
    owner = Owner()
    while True:
        try:
            content, kind = owner.receive(Any)
        except (EOFError, OSError):
            return
        try:
            owner.send({"name": type(typed(content, kind)).__name__})
        except (AssertionError, ValueError) as error:
            kind = "assertion" if isinstance(error, AssertionError) else "value"
            owner.send({"kind": kind, "problem": str(error)})


if __name__ == "__main__":
    serve()
