"""Verification of one shard of an image set, whose part file is joined with the others later."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.core.progress import SILENT
from ccr_deploy.core.untrusted import open_regular, reading
from ccr_deploy.errors import CcrDeployError, WrongUsageError
from ccr_deploy.verification.answer_cache import AnswerCache
from ccr_deploy.verification.part_file import MARK, SCHEMA_VERSION, part_file
from ccr_deploy.verification.part_records import PartHeader
from ccr_deploy.verification.shards import part_path
from ccr_deploy.verification.verify import run_batches, run_identity
from ccr_deploy.workflow.batches import in_batches
from ccr_deploy.workflow.images import image_set
from ccr_deploy.workflow.verify import prepare

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.core.shards import Shard
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.verification.results import Level


@dataclass(frozen=True)
class VerifiedShard:
    """A part file that was written: its path, and how many of the set's images it has."""

    path: Path
    images: int
    image_count: int


def verify_shard(
    bundle: Bundle,
    target: str,
    store: EngineStore,
    shard: Shard,
    folder: Path,
    *,
    precision: EnginePrecision | None = None,
    images: Path | None = None,
    samples: int | None = None,
    changed_gates: Sequence[str] = (),
    with_matrix: bool = False,
    progress: Progress = SILENT,
) -> VerifiedShard:
    """Run a shard of the images as `verify_bundle` does, and write the results to its part file.

    A part file that was interrupted is continued.

    Args:
        bundle: bundle that the engines were built from.
        target: name or TOML file of the target.
        store: engine store.
        shard: shard of the batches to run.
        folder: folder of the part file.
        precision: precision of encoder and classifier; None for the engines that were built last.
        images: folder of images; None for the bundle's sample images.
        samples: number of images, evenly spaced over all; None for all.
        changed_gates: limits that replace the default ones, each as ``name=value``.
        with_matrix: whether to run every encoder precision with every classifier precision, by their graphs.
        progress: advances by images.

    Raises:
        WrongUsageError: if an engine was not built, a gate does not exist, or the part file is another
            program's or of another run.
        EngineError: if an engine cannot be loaded or run.
        BundleError: if the bundle is damaged.
        ImageError: if the folder has no images, or an image cannot be used.
        MissingExtraError: if a package is not installed.
        CcrDeployError: if the part file cannot be written, or another command is writing it.
    """
    path = part_path(folder, shard)
    _check_ours(path)
    listed = image_set(bundle, images, samples, shard)
    prepared = prepare(
        bundle,
        target,
        store,
        precision=precision,
        changed_gates=changed_gates,
        with_matrix=with_matrix,
        # The limit of a cache holds for one process; shards that share the store would exceed it.
        cache=AnswerCache(None),
    )
    # Engines are loaded after the part file is locked; its header only names the ways.
    ways: dict[Level, dict[Stage, Runner]] = {level: {} for level in prepared.limits}
    run = run_identity(
        bundle,
        listed,
        ways,
        list(prepared.engines.values()),
        target=target,
        limits=prepared.limits,
        matrix=prepared.matrix,
        computed_by=prepared.computed_by,
    )
    header = PartHeader(SCHEMA_VERSION, shard, run)
    own = sum(len(names) for names in shard.chosen(in_batches(listed.names, run.batch)))
    with ExitStack() as stack:
        try:
            part = stack.enter_context(part_file(path, header, is_required=True))
        except BlockingIOError:
            raise CcrDeployError(f"{path}: another command is writing to it: wait until it ends") from None
        except OSError as error:
            raise CcrDeployError(f"{path}: cannot be written ({error.strerror})") from error
        advance = stack.enter_context(progress.task(f"verifying shard {shard}", own))
        for _ in run_batches(
            bundle,
            listed,
            reference=prepared.reference,
            ways=prepared.load_ways(),
            matrix=prepared.matrix,
            journal=part,
            advance=advance,
        ):
            pass  # the part file keeps the results
    return VerifiedShard(path, own, run.image_count)


def _check_ours(path: Path) -> None:
    """Raise WrongUsageError if the part file would replace a file of another program."""
    if not path.exists():
        return
    with reading(path, WrongUsageError, ": choose another folder"), open_regular(path) as file:
        start = file.read(len(MARK))
    if start not in {b"", MARK}:  # empty if the command that created it was killed
        raise WrongUsageError(
            f"{path.parent}: contains a {path.name} that ccr-deploy did not write: choose another folder"
        )
