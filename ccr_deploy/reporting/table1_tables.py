"""Tables of the paper's Table 1 on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.reporting.table import Table, interval_text, number
from ccr_deploy.reporting.tables import unreliable_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccr_deploy.benchmarking.table1_results import Table1, Table1Model, Table1Time

_NO_RESULT = "–"


def table1_tables(found: Table1) -> list[Table]:
    """Return the tables of the times, of the parts of the CCR models, and of the counts."""
    return [times_table(found), parts_table(found), counts_table(found)]


def times_table(found: Table1) -> Table:
    """Return a row for each model, runtime and precision, beside the paper's."""
    papers = {model.model: model.paper for model in found.models}
    device = found.machine.gpu or found.machine.processor
    return Table.of(
        "The paper's Table 1 on this machine, one image per call",
        sorted(
            (time for time in found.times if time.part == "chain"),
            key=lambda time: (_runtimes(found).index(_runtime(time)), list(papers).index(time.model)),
        ),
        [
            ("model", lambda time: time.model),
            ("runtime", _runtime),
            ("p50 ms", lambda time: number(time.latency_ms_p50, 1)),
            ("95 % interval", lambda time: interval_text(time.latency_ms_p50_interval, 1)),
            ("less than baseline", lambda time: _percent(time.reduction_percent, 1)),
            ("95 % interval of less", lambda time: interval_text(time.reduction_percent_interval, 1)),
            ("less than eager baseline", lambda time: _percent(time.reduction_from_eager_percent, 1)),
            ("paper: ms", lambda time: number(papers[time.model].time_ms, 1)),
            ("paper: less", lambda time: _percent(papers[time.model].reduction_percent, 0)),
        ],
        note=f"{found.image_height}x{found.image_width}, T={found.iterations}, untrained weights, "
        f"{found.threads} threads, {found.rounds} interleaved rounds, each candidate in its own process, on "
        f"{device}; less than baseline: in the same runtime and precision; PyTorch eager runs in FP32 "
        "only; the paper's times are of its GPU, which it does not name"
        + "".join(f"; left out: {reason}" for reason in found.left_out),
        warning=unreliable_line(found.unreliable_reasons).replace("speed-ups", "reductions"),
    )


def parts_table(found: Table1) -> Table:
    """Return the times of encoder and classifier of each CCR model; the note says what bounds the chain."""
    chains = [
        time
        for time in found.times
        if time.part == "chain" and _part(found, time, "encoder") and _part(found, time, "classifier")
    ]
    return Table.of(
        "What the time of a CCR model consists of",
        chains,
        [
            ("model", lambda time: time.model),
            ("runtime", _runtime),
            ("encoder ms", lambda time: number(_part_ms(found, time, "encoder"), 1)),
            ("classifier ms", lambda time: number(_part_ms(found, time, "classifier"), 1)),
            ("chain ms", lambda time: number(time.latency_ms_p50, 1)),
            ("encoder's share", lambda time: _percent(_encoder_share(found, time), 0)),
        ],
        note=bound_note(found),
    )


def counts_table(found: Table1) -> Table:
    """Return the parameters and multiply-accumulates of each model, beside the paper's parameters."""
    baseline = found.models[0]
    return Table.of(
        "Parameters and multiply-accumulates",
        found.models,
        [
            ("model", lambda model: model.model),
            ("parameters", lambda model: f"{model.parameters:,}"),
            ("paper: parameters", lambda model: f"{model.paper.parameters:,}"),
            ("encoder GMAC", lambda model: number(model.encoder_macs / 1e9, 2)),
            ("classifier GMAC", lambda model: number(model.classifier_macs / 1e9, 2)),
            ("in all", lambda model: number(_macs(model) / 1e9, 2)),
            ("less than baseline", lambda model: _percent(_less(_macs(baseline), _macs(model)), 1)),
        ],
        note="GMAC: multiply-accumulates of one image over all iterations, without repeated work; the "
        "classifier of a baseline includes its decoder; the paper prints neither channel widths nor "
        "multiply-accumulates: the reconstruction fits its parameters, not its times",
    )


def bound_note(found: Table1) -> str:
    """Return what bounds the time of the CCR models, from the first to the last, in words."""
    first, last = found.models[1], found.models[-1]
    macs = _less(_macs(first), _macs(last))
    paper = first.paper.time_ms / last.paper.time_ms
    counted = (
        f"from {first.model} to {last.model} multiply-accumulates fall by {number(macs, 0)} % and the "
        f"paper's time falls {paper:.1f} times"
    )
    return "; ".join(
        (counted, *([] if found.unreliable_reasons else _bounds(found, first.model, last.model)))
    )


def _bounds(found: Table1, first: str, last: str) -> Iterator[str]:
    """Yield how much faster the last model is than the first in each runtime, and could be at most."""
    chains = {(time.model, _runtime(time)): time for time in found.times if time.part == "chain"}
    for runtime in _runtimes(found):
        one, other = chains.get((first, runtime)), chains.get((last, runtime))
        encoder = _part_ms(found, one, "encoder") if one else None
        if one and other and encoder:
            yield (
                f"in {runtime} it falls {one.latency_ms_p50 / other.latency_ms_p50:.2f} times: the encoder, "
                f"the same in all, takes {_encoder_share(found, one):.0f} % of {first}'s time, so that a "
                f"chain without a classifier would be {one.latency_ms_p50 / encoder:.2f} times as fast"
            )


def _runtimes(found: Table1) -> list[str]:
    return list(dict.fromkeys(_runtime(time) for time in found.times))


def _runtime(time: Table1Time) -> str:
    return f"{time.runtime} {time.precision.upper()}"


def _part(found: Table1, chain: Table1Time, part: str) -> Table1Time | None:
    """Return the time of a part in the chain's runtime; the encoder was timed once for all CCR models."""
    for time in found.times:
        is_shared = part == "encoder" and chain.model != found.models[0].model
        if (time.part, _runtime(time)) == (part, _runtime(chain)) and (
            is_shared or time.model == chain.model
        ):
            return time
    return None


def _part_ms(found: Table1, chain: Table1Time, part: str) -> float | None:
    time = _part(found, chain, part)
    return None if time is None else time.latency_ms_p50


def _encoder_share(found: Table1, chain: Table1Time) -> float | None:
    encoder = _part_ms(found, chain, "encoder")
    return None if encoder is None else 100 * encoder / chain.latency_ms_p50


def _macs(model: Table1Model) -> int:
    return model.encoder_macs + model.classifier_macs


def _less(baseline: float, other: float) -> float | None:
    return None if baseline == other else 100 * (1 - other / baseline)


def _percent(value: float | None, digits: int) -> str:
    return _NO_RESULT if value is None else f"{value:.{digits}f} %"
