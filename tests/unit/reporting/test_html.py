"""The HTML report: sections and their order, plots, hostile names, and no references to other documents."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from msgspec.structs import replace

from ccr_deploy.bundle.tolerance import KINDS, FlipCost, FlipTolerance
from ccr_deploy.core.metrics import Interval
from ccr_deploy.reporting.html import html
from ccr_deploy.reporting.results import Results
from ccr_deploy.verification.results import (
    AccuracyChange,
    ChangedAnswer,
    Finding,
    MarginCount,
    MatrixCell,
    NonFinite,
    SampleAnswer,
    VerificationReport,
)
from tests.support.results import chain_accuracy, code_parity, gate_result, logit_parity
from tests.unit.reporting.test_tables import BENCHMARK, UNRELIABLE, VERIFICATION

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
HOSTILE = "<script>alert(1)</script>$\\frac{$\u202egnp.\" onload='x'"


def changed(name: str = "a.png", **values: object) -> ChangedAnswer:
    usual = {
        "thumbnail_png_base64": PNG,
        "label": "cat",
        "reference": "cat",
        "reference_probability": 0.9,
        "answer": "dog",
        "probability": 0.6,
        "flipped_bits": 3,
    }
    return ChangedAnswer(name=name, **{**usual, **values})


FLIPPED = code_parity(
    images=40,
    flipped_bits=44,
    channel_flips=(40, 1, 3, 0),
    margins=(MarginCount(0.0, 20, 20), MarginCount(1e-5, 400, 20), MarginCount(1.0, 9_580, 4)),
    median_flipped_margin=1e-5,
)

FULL = replace(
    VERIFICATION,
    codes=(FLIPPED,),
    logits=(logit_parity("classifier", images=40), logit_parity("chain", images=40, same_top1=38)),
    accuracies=(chain_accuracy("pytorch", 75.0), chain_accuracy("engine", 72.5)),
    accuracy_changes=(AccuracyChange("engine", 40, 2, 1, 1.0, 2.5, Interval(-1.0, 6.0)),),
    gates=(gate_result("flipped bits (%)", "engine", 2, 0.44, passed=True, protects_from="foreign codes"),),
    matrix=(
        MatrixCell("fp32", "fp32", 40, 40, 75.0, 0.0, Interval(0, 0)),
        MatrixCell("int8", "fp32", 40, 38, 74.0, 1.0, Interval(-1, 2)),
    ),
    changed_answers=(changed(), changed("b.png", label="dog")),
    samples=(SampleAnswer("s.png", PNG, "cat", "dog", 0.7, 30, 900),),
)


def page(verification: VerificationReport | None = FULL, benchmark: object = None) -> str:
    return html("report", Results(verification, benchmark))


class AttributeNames(HTMLParser):
    """The names of all attributes in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {name for name, _ in attrs}


def headings(text: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", text)


def section(text: str, title: str) -> str:
    return text.split(f"<h2>{title}</h2>")[1].split("</section>", maxsplit=1)[0]


def plot(text: str, description: str) -> str:
    (found,) = re.findall(rf'<svg role="img" aria-label="{description}".*?</svg>', text, re.DOTALL)
    return found


def test_what_decides_comes_first_and_details_last() -> None:
    assert headings(page(FULL, BENCHMARK)) == [
        "Margins of the bits",
        "Encoder and classifier precisions",
        "Accuracy",
        "Changed answers",
        "Gates",
        "Codes compared with PyTorch",
        "Logits compared with PyTorch",
        "Flips per channel",
        "Engines compared with PyTorch eager",
        "Speed, batch 4, 2 threads",
        "Sample images",
    ]


def test_absent_results_have_no_sections() -> None:
    bare = replace(
        FULL,
        codes=(code_parity(),),
        accuracies=(),
        accuracy_changes=(),
        matrix=(),
        changed_answers=(),
        samples=(),
    )
    assert headings(page(bare)) == [
        "Margins of the bits",
        "Gates",
        "Codes compared with PyTorch",
        "Logits compared with PyTorch",
    ]
    assert headings(page(None, BENCHMARK)) == ["Speed, batch 4, 2 threads"]
    assert "Parity" not in page(None, BENCHMARK)


def test_the_verdict_names_each_failed_gate_and_what_it_protects_from() -> None:
    failed = replace(
        FULL,
        gates=(
            gate_result("flipped bits (%)", "graph", 2, 3, passed=False, protects_from="foreign codes"),
            gate_result("flipped bits (%)", "engine", 2, 4, passed=False, protects_from="foreign codes"),
            gate_result("cosine", "engine", 0.9, 1, passed=True, direction="at least"),
        ),
    )
    text = page(failed)
    top = text[: text.index("<section>")]
    assert "Parity: 2 of 3 gates failed." in top
    assert "flipped bits (%): graph 3 (limit ≤ 2), engine 4 (limit ≤ 2)" in top
    assert top.count("protects from foreign codes") == 1
    assert "cosine" not in top
    assert "Parity: all gates passed." in page()


def test_the_verdict_locates_nan() -> None:
    entry = NonFinite(way="engine", output="chain", values=12, images=3, first_image="cats/<b>.png")
    text = page(replace(FULL, non_finite=(entry,)))
    assert "NaN or infinity: 12 values of the chain of engine" in text
    assert "in 3 of 40 images, first in cats/&lt;b&gt;.png" in text


def test_the_verdict_shows_findings_with_their_evidence() -> None:
    finding = Finding("engine", "encoder", "swapped-channels", "channels 3 and <7> of the code")
    text = page(replace(FULL, findings=(finding,)))
    top = text[: text.index("<section>")]
    assert "engine, encoder: swapped channels" in top
    assert "channels 3 and &lt;7&gt; of the code" in top


def tolerance(labelled_groups: int) -> FlipTolerance:
    loss, interval = (5.0, Interval(2, 9)) if labelled_groups else (None, None)
    costs = [
        FlipCost(kind, share, 100 - share, loss, interval) for kind in KINDS for share in (1.0, 4.0, 16.0)
    ]
    return FlipTolerance("images", 100, labelled_groups, tuple(costs))


def test_the_flip_tolerance_comes_first_with_the_engine_s_own_point() -> None:
    text = page(replace(FULL, tolerance=tolerance(40)))
    assert headings(text)[0] == "Flip tolerance"
    curves = plot(text, "Cost of flipped bits")
    for label in ("bits near zero", "random bits", "engine", "lost top-1 accuracy in points"):
        assert label in curves
    assert "limit" not in curves
    gate = gate_result("top-1 loss", "engine", 1.5, 0, passed=True, name="max-top1-loss-points")
    limited = page(replace(FULL, tolerance=tolerance(40), gates=(gate,)))
    assert "limit 1.5" in plot(limited, "Cost of flipped bits")


def test_without_labels_the_flip_tolerance_shows_changed_classes() -> None:
    unlabelled = replace(FULL, tolerance=tolerance(0), accuracies=(), accuracy_changes=())
    curves = plot(page(unlabelled), "Cost of flipped bits")
    assert "changed top-1 classes in %" in curves
    assert "engine" in curves


def test_a_way_without_flips_has_no_point_on_the_flip_tolerance() -> None:
    equal = replace(FULL, tolerance=tolerance(40), codes=(code_parity(),))
    assert "engine" not in plot(page(equal), "Cost of flipped bits")


def test_limits_from_the_flip_tolerance_are_explained() -> None:
    gate = gate_result("flipped bits (%)", "engine", 2, 0.4, passed=True, limit_reason="loses 1 point")
    assert "loses 1 point" in section(page(replace(FULL, gates=(gate,))), "Limits of this model")
    assert "Limits of this model" not in page()


def test_every_gate_says_what_it_protects_from() -> None:
    assert re.search(r"protects from</th>.*foreign codes</td>", section(page(), "Gates"), re.DOTALL)


def test_changed_answers_say_which_side_is_right_and_how_many_are_not_shown() -> None:
    shown = section(
        page(replace(FULL, logits=(logit_parity("chain", images=40, same_top1=30),))), "Changed answers"
    )
    assert "for 10 of 40 images; these are the first 2." in shown
    assert re.findall(r'<strong class="(\w*)">cat → dog', shown) == ["fail", "pass"]
    unlabelled = section(
        page(replace(FULL, changed_answers=(changed(label=None, answer=None),))), "Changed answers"
    )
    assert '<strong class="">cat → NaN or infinity' in unlabelled
    assert "Green" not in unlabelled


def test_cells_of_the_matrix_are_shaded_by_their_loss() -> None:
    shades = re.findall(
        r"<td[^>]*?(?:--shade: ([\d.]+)[^>]*)?>(\d[\d.]* %)",
        section(page(), "Encoder and classifier precisions"),
    )
    assert shades == [("", "75.0 %"), ("0.50", "74.0 %")]


def test_numbers_are_right_aligned_and_words_left_aligned() -> None:
    gates = section(page(), "Gates")
    assert '<th scope="col" class="left">gate</th>' in gates
    assert '<th scope="col">engine</th>' in gates
    assert re.search(r"\btext-align: right", page())


@pytest.mark.parametrize("benchmark", [BENCHMARK, UNRELIABLE, None])
def test_the_page_needs_no_other_document(benchmark) -> None:
    text = page(FULL, benchmark)
    assert not re.search(r"https?:|<script|<link|@import|url\((?!#)", text)
    assert all(source.startswith("data:image/png") for source in re.findall(r'src="([^"]*)"', text))
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', text))


def test_plots_have_the_colours_and_the_font_of_the_page_which_follow_the_colour_scheme() -> None:
    text = page(FULL, BENCHMARK)
    assert "@media (prefers-color-scheme: dark)" in text
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(plots) == 4
    for one in plots:
        assert not re.search(r"(fill|stroke): #", one)
        assert "font-family" not in one
        assert "<style" not in one
    used = set(re.findall(r"var\((--\w+)\)", text))
    assert used <= set(re.findall(r"(--\w+):", text))


def test_ids_are_unique_or_of_the_same_marker() -> None:
    text = page(FULL, BENCHMARK)
    elements = set(re.findall(r'<\w+ id="([^"]+)"(.*?)/?>', text, re.DOTALL))
    assert len({name for name, _ in elements}) == len(elements)


def test_hostile_names_are_escaped() -> None:
    hostile = replace(
        FULL,
        images=HOSTILE,
        target=HOSTILE,
        changed_answers=(changed(HOSTILE, reference=HOSTILE),),
        samples=(replace(FULL.samples[0], name=HOSTILE, answer=HOSTILE),),
    )
    named = replace(
        BENCHMARK,
        timings=tuple(
            replace(entry, candidate=HOSTILE, samples_ms=((1.0, 2.0),)) for entry in BENCHMARK.timings
        ),
        warnings=(HOSTILE,),
    )
    text = html(HOSTILE, Results(hostile, named))
    assert "<script" not in text
    assert "\u202e" not in text
    attributes = AttributeNames()
    attributes.feed(text)
    assert "onload" not in attributes.found
    assert "title" in attributes.found


def test_a_speed_up_that_would_dwarf_the_others_gives_a_logarithmic_axis() -> None:
    def text_of(largest: float) -> str:
        first, *others = BENCHMARK.timings
        interval = Interval(largest * 0.9, largest * 1.1)
        fast = replace(others[0], speedup=largest, speedup_interval=interval)
        report = replace(BENCHMARK, timings=(first, fast, *others[1:]))
        return plot(page(None, report), "Speed-up of each candidate over PyTorch eager")

    assert "logarithmic axis" in text_of(30)
    assert "logarithmic axis" not in text_of(15)


def test_a_channel_that_would_dwarf_the_others_gives_a_logarithmic_axis() -> None:
    def text_of(flips: tuple[int, ...]) -> str:
        return section(
            page(replace(FULL, codes=(replace(FLIPPED, channel_flips=flips),))), "Flips per channel"
        )

    assert "flipped bits, log" in text_of((40, 1, 0))
    assert "flipped bits, log" not in text_of((15, 1, 0))


def test_the_histogram_of_margins_shows_all_bits_and_the_flipped_ones() -> None:
    margins = section(page(), "Margins of the bits")
    bars = plot(margins, "Histogram of the margins of all bits and of flipped bits")
    assert bars.count('style="fill: var(--other)"') == 3 + 1  # with the legend
    assert bars.count('style="fill: var(--accent)"') == 3 + 1
    assert "Most bits that the engine flips are near 0" in margins
    far = replace(FLIPPED, median_flipped_margin=0.5)
    assert "rounding does not explain them" in page(replace(FULL, codes=(far,)))


def test_a_page_with_24_thumbnails_is_below_a_megabyte() -> None:
    noise = PNG + "A" * (28_000 * 4 // 3 - len(PNG))  # an image of noise, 96 x 96 pixels
    text = page(replace(FULL, changed_answers=tuple(changed(thumbnail_png_base64=noise) for _ in range(24))))
    assert len(text.encode()) < 1 << 20
