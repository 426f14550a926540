"""Write the bill of materials of a wheel beside it, as CycloneDX JSON: ``python -m scripts.make_sbom WHEEL``.

`cyclonedx-py` lists the packages of this environment with their licences. The bill keeps those that the
wheel requires (scope `required`) and those that only an extra requires (scope `optional`), and leaves the
development tools out. The versions are those of constraints.txt that the tests ran with, on this platform.
The bill has no timestamp and no serial number: the same wheel and environment give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from email.parser import BytesHeaderParser
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from email.message import Message

ROOT_REF = "root-component"
"""The reference that cyclonedx-py gives to the component that requires the others: here, the wheel."""


def wheel_metadata(wheel: Path) -> Message:
    """Return the metadata in a wheel."""
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return BytesHeaderParser().parsebytes(archive.read(name))


def closure(requirements: Iterable[str], extras: Iterable[str] = ()) -> set[str]:
    """Return the canonical names of the installed packages that satisfy requirements, directly or indirectly.

    Requirements for another platform or for an extra that is not among `extras` are skipped. So are packages
    that are not installed: full TensorRT, and the ONNX Runtime packages that exclude each other.
    """
    found: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), extra) for text in requirements for extra in ("", *extras)]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for own_extra in ("", *requirement.extras):
            if (name, own_extra) in found:
                continue
            try:
                needed = requires(name) or []
            except PackageNotFoundError:
                break
            found.add((name, own_extra))
            waiting += [(Requirement(text), own_extra) for text in needed]
    return {name for name, _ in found}


def environment_sbom(metadata: Message) -> dict[str, Any]:
    """Return the bill of all packages in this environment, with the wheel as its root component."""
    root = {"name": metadata["Name"], "version": metadata["Version"], "description": metadata["Summary"]}
    lines = [f"{field} = {json.dumps(value)}" for field, value in root.items()]
    with tempfile.TemporaryDirectory() as folder:
        # cyclonedx-py takes the version from a project file alone, and ours has a dynamic one.
        project = Path(folder) / "pyproject.toml"
        project.write_text(
            "\n".join(["[project]", *lines, f"license = {json.dumps(metadata['License-Expression'])}", ""]),
            encoding="utf-8",
        )
        command = [
            str(Path(sys.executable).with_name("cyclonedx-py")), "environment", sys.executable,
            "--pyproject", str(project), "--mc-type", "library", "--output-reproducible",
        ]  # fmt: skip
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    sbom: dict[str, Any] = json.loads(printed)
    return sbom


def wheel_sbom(wheel: Path) -> dict[str, Any]:
    """Return the bill of a wheel and of the packages of this environment that it requires."""
    metadata = wheel_metadata(wheel)
    requirements = metadata.get_all("Requires-Dist", [])
    required = closure(requirements)
    wanted = closure(requirements, metadata.get_all("Provides-Extra", []))
    sbom = environment_sbom(metadata)
    components = []
    for component in sbom["components"]:
        name = canonicalize_name(component["name"])
        if name in wanted and name != canonicalize_name(metadata["Name"]):
            components.append({**component, "scope": "required" if name in required else "optional"})
    sbom["components"] = components
    root = sbom["metadata"]["component"]
    root["purl"] = f"pkg:pypi/{metadata['Name']}@{metadata['Version']}"
    root["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}]
    refs = {canonicalize_name(component["name"]): component["bom-ref"] for component in components}
    kept = {ROOT_REF, *refs.values()}
    direct = {canonicalize_name(Requirement(text).name) for text in requirements}
    sbom["dependencies"] = [
        _dependency(entry["ref"], set(entry.get("dependsOn", ())) & kept)
        for entry in sbom["dependencies"]
        if entry["ref"] in kept - {ROOT_REF}
    ] + [_dependency(ROOT_REF, {refs[name] for name in direct if name in refs})]
    return sbom


def _dependency(ref: str, on: set[str]) -> dict[str, Any]:
    return {"ref": ref, "dependsOn": sorted(on)} if on else {"ref": ref}


def main() -> None:
    """Write the bill of the wheel that the command line names, and print its path."""
    wheel = Path(sys.argv[1])
    name, version, *_ = wheel.stem.split("-")
    output = wheel.with_name(f"{name}-{version}.cdx.json")
    output.write_text(json.dumps(wheel_sbom(wheel), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(output)


if __name__ == "__main__":
    main()
