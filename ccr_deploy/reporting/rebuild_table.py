"""The table of several builds of the same engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.reporting.table import Table, number

if TYPE_CHECKING:
    from ccr_deploy.verification.rebuilds import Build, RebuildReport


def rebuild_table(report: RebuildReport) -> Table:
    """Return a row for each build: its differences from reference and installed engines, and its speed."""
    times = [build.latency_ms_p50 for build in report.builds]
    reference = "golden file" if report.reference == "golden" else "PyTorch"

    def flips(bits: int) -> str:
        return f"{bits} of {report.bits}" + (f" ({100 * bits / report.bits:.2g} %)" if bits else "")

    def answers(images: int) -> str:
        return f"{images} of {report.image_count}"

    def hashes(build: Build) -> str:
        return " ".join(sha256[:8] for sha256 in build.engine_sha256.values())

    varying = f" ({', '.join(report.images_that_vary)})" if report.images_that_vary else ""
    return Table.of(
        f"Builds compared: {' + '.join(dict.fromkeys(report.precisions.values()))}",
        report.builds,
        [
            ("build", lambda build: build.name),
            ("SHA-256", hashes),
            ("built in", lambda build: number(build.build_seconds, 1, " s")),
            (f"flipped ({reference})", lambda build: flips(build.flipped_bits)),
            (f"answers changed ({reference})", lambda build: answers(build.changed_answers)),
            ("flipped (installed)", lambda build: flips(build.bits_unlike_installed)),
            ("answers changed (installed)", lambda build: answers(build.answers_unlike_installed)),
            ("median", lambda build: number(build.latency_ms_p50, 2, " ms")),
        ],
        note=f"{report.image_count} images ({report.images}); SHA-256 of encoder and classifier; not all "
        f"builds agree on {report.bits_that_vary} bits and on the answers for {report.answers_that_vary} "
        f"images{varying}; median time of the chain at batch {report.batch}, interleaved: {min(times):.2f} "
        f"to {max(times):.2f} ms",
        warning=f"The timing is UNRELIABLE: {'; '.join(report.unreliable_reasons)}"
        if report.unreliable_reasons
        else "",
    )
