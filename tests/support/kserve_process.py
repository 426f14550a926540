"""What KServe's own typed classes say of a mapping: unknown and missing fields are refused.

The SDK's own reader drops what it does not know. `tests.support.kserve_types` asks in a process of its own:
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
    """`content` as an object of the class named `kind`, or of what else KServe's classes name."""
    where = where or kind
    if parts := re.fullmatch(r"[Ll]ist\[(.+)\]", kind):
        assert isinstance(content, list), f"{where}: no list"
        return [typed(part, parts[1], f"{where}[{index}]") for index, part in enumerate(content)]
    if parts := re.fullmatch(r"[Dd]ict[(\[]str, (.+)[)\]]", kind):
        assert isinstance(content, dict), f"{where}: no mapping"
        return {name: typed(part, parts[1], f"{where}.{name}") for name, part in content.items()}
    if kind in _SCALARS:
        right = isinstance(content, _SCALARS[kind]) and isinstance(content, bool) == (kind == "bool")
        assert right, f"{where}: {content!r} is no {kind}"
        return content
    assert isinstance(content, dict), f"{where}: no mapping"
    known = _class(kind)
    attributes = {key: attribute for attribute, key in known.attribute_map.items()}
    unknown = sorted(set(content) - set(attributes))
    assert not unknown, f"{where}: unknown {unknown}"
    values = {
        attributes[key]: typed(value, known.openapi_types[attributes[key]], f"{where}.{key}")
        for key, value in content.items()
    }
    return known(**values)  # refuses where a required field is missing


def _class(kind: str) -> Any:
    """A class of KServe's, or of Kubernetes', which KServe's name by its Go package here and there."""
    name = re.sub(r"^K8sIoApi(Apps|AutoscalingV2)", "", kind)
    for module in (kserve.models, kubernetes.client.models):
        if hasattr(module, name):
            return getattr(module, name)
    raise AssertionError(f"KServe has no class {kind}")


def serve() -> None:
    """Answers each mapping and class by the name of the object's class, or by the error."""
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
