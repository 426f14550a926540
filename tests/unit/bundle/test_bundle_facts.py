"""Reading only the manifest, as products do, and the whole bundle, as commands do."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING

import pytest

from ccr_deploy.bundle.manifest import MANIFEST
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.codec.contract import CANONICAL_FORM
from ccr_deploy.errors import BundleError, CcrDeployError, WrongUsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    shutil.copytree(tiny_bundle.path, tmp_path / "bundle")
    return tmp_path / "bundle"


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    change(content)
    (folder / MANIFEST).write_text(json.dumps(content))


def test_both_readers_return_the_same_manifest(tiny_bundle: Bundle) -> None:
    assert Bundle.read(tiny_bundle.path) == tiny_bundle


def test_baseline_and_encoder_have_different_reference_hashes(tiny_bundle: Bundle) -> None:
    manifest = tiny_bundle.manifest
    assert manifest.reference_hash("encoder") == manifest.reference_hash("classifier")
    assert manifest.reference_hash("baseline") != manifest.reference_hash("encoder")


def test_classes_without_names_are_numbered(folder: Path) -> None:
    assert Bundle.read(folder).manifest.class_name(1) == "bread"
    edit(folder, lambda content: content.update(class_names=[]))
    assert Bundle.read(folder).manifest.class_name(1) == "class 1"


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(CcrDeployError) as caught:
        read()
    return f"{type(caught.value).__name__}: {caught.value}"


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"schema_version": 9}'])
def test_both_readers_refuse_a_damaged_manifest_with_the_same_message(text: str | None, folder: Path) -> None:
    (folder / MANIFEST).unlink()
    if text is not None:
        (folder / MANIFEST).write_text(text)
    expected = refusal(lambda: Bundle.open(folder))
    assert refusal(lambda: Bundle.read(folder)) == expected


def test_a_wrong_contract_id_is_refused(folder: Path) -> None:
    edit(folder, lambda content: content.update(contract_id="0" * 16))
    with pytest.raises(BundleError, match=r"field contract_id: expected [0-9a-f]{16}, found 0{16}"):
        Bundle.read(folder)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda content: content.pop("contract"), "contract"),
        (lambda content: content["contract"].update(surprise=1), "contract.surprise"),
        (lambda content: content["contract"].update(bit_order="lsb-first"), "contract.bit_order"),
        (
            lambda content: content["contract"]["preprocessing"].update(std=[1, 0, 1]),
            "contract.preprocessing",
        ),
        (lambda content: content["graphs"][0].update(schedule="sideways"), "graphs.0.schedule"),
        (lambda content: content["weights"].update(name="../weights"), "weights.name"),
        (lambda content: content.update(class_names="abc"), "class_names"),
    ],
)
def test_a_wrong_field_is_refused_and_named(
    change: Callable[[dict], object], field: str, folder: Path
) -> None:
    edit(folder, change)
    with pytest.raises(BundleError) as caught:
        Bundle.read(folder)
    assert f"{folder / MANIFEST}: field {field}: " in str(caught.value)
    assert "export the bundle again" in str(caught.value)


def test_the_manifest_is_read_without_the_other_files(folder: Path) -> None:
    expected = Bundle.open(folder).manifest
    for file in expected.files():
        (folder / file.name).unlink(missing_ok=True)
    assert Bundle.read(folder).manifest == expected


def test_a_folder_without_a_bundle_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(WrongUsageError, match="no bundle found"):
        Bundle.read(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("class_names", ["only one"]),
        ("class_names", ["\ud800"] * 5),
        ("contract", {"image_height": 0}),
        ("contract", {"image_height": 1 << 20}),
        ("contract", {"code_channels": -16}),
        ("contract", {"iterations": True}),
        ("contract", {"preprocessing": {"resize_to_cover": [1, 1]}}),
        ("contract", {"preprocessing": {"resize_to_cover": [32, 48], "std": [1e-50, 1, 1]}}),
        ("model", {}),
    ],
)
def test_both_readers_refuse_a_hostile_field(folder: Path, field: str, value: object) -> None:
    """The contract id is made to match, so that only the field itself is wrong."""

    def change(content: dict) -> None:
        content[field] = {**content[field], **value} if field == "contract" else value
        form = {"canonical_form": CANONICAL_FORM, **content["contract"]}
        text = json.dumps(form, sort_keys=True, separators=(",", ":"))
        content["contract_id"] = hashlib.sha256(text.encode()).hexdigest()[:16]

    edit(folder, change)
    for read in (Bundle.read, Bundle.open):
        with pytest.raises(BundleError, match=r"manifest\.json: ") as caught:
            read(folder)
        assert "\n" not in str(caught.value)
