"""The report: everything a person needs, inside one page, whatever the names look like."""

import re
import warnings
import zlib
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Chromium
from browser import chromium as chromium  # noqa: PLC0414 - a fixture

from ratchet.evaluation.counts import ImageCounts
from ratchet.gate import Context, Cost, Evidence, ModelRef, Policy, Verdict, judge, wording
from ratchet.gate.chart import interval_chart
from ratchet.gate.intervals import interval_rows
from ratchet.gate.markdown import markdown_report
from ratchet.gate.pictures import interval_figure, interval_png
from ratchet.gate.report import Example, html_report
from ratchet.gate.tables import check_table

PNG = b"\x89PNG\r\n\x1a\n"
HOSTILE = 'a"><script>alert(1)</script>|`x`'


def verdict_of(
    classes: tuple[str, ...],
    *,
    first: bool = False,
    alike: bool = False,
    images: int = 60,
    groups: int | None = None,
    **rules: Any,
) -> Verdict:
    truth = np.random.default_rng(0).integers(500, 2_000, (images, len(classes)))

    def model(seed: int, quality: float) -> ImageCounts:
        share = np.clip(np.random.default_rng(seed).normal(quality, 0.1, truth.shape), 0, 1)
        tp = (truth * share).astype(np.int64)
        return ImageCounts(tuple(f"{i}.png" for i in range(images)), classes, tp, tp * 0, truth - tp)

    policy = Policy.model_validate(
        {"floor": 0.1, "non_inferiority": {}, "resamples": 1_000, "budget": {"latency_ratio": 2}}
        | ({"group_by": "part"} if groups else {})
        | rules
    )
    champion = None if first else ModelRef(version=1, digest="a")
    context = Context(model="pets", challenger=ModelRef(version=2, digest="b"), champion=champion, gate_set="g")
    costs = Evidence(challenger_cost=Cost(latency_ms=(9.0,) * 30), champion_cost=Cost(latency_ms=(8.0,) * 30))
    return judge(
        policy=policy,
        challenger=model(1, 0.8),
        champion=None if first else model(1, 0.8) if alike else model(2, 0.7),
        context=context,
        evidence=costs,
        metadata={"part": {f"{i}.png": str(i % groups) for i in range(images)}} if groups else None,
    )


class Tags(HTMLParser):
    """Collects the tags of a page and what they point to."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_the_page_holds_every_check_and_points_nowhere_outside() -> None:
    verdict = verdict_of(("cat", "dog"))
    example = Example(
        "7.png", 0.4, 0.8, (("image", PNG), ("truth", PNG), ("champion", PNG), ("challenger", b"\xff\xd8"))
    )
    page = html_report(verdict, worsened=[example], improved=[example])
    tags = Tags()
    tags.feed(page)
    assert all(escape(check.why) in page for check in verdict.checks)
    assert all(source.startswith("data:image/") for source in tags.sources)
    assert len(tags.sources) == 2 * 4
    assert "http" not in page
    assert "script" not in tags.seen


def test_hostile_names_stay_text_in_the_page_and_in_markdown() -> None:
    verdict = verdict_of((HOSTILE, "dog"))
    page = html_report(verdict, worsened=[Example(HOSTILE, 0.1, None, ((HOSTILE, PNG),))])
    tags = Tags()
    tags.feed(page)
    assert "script" not in tags.seen
    text = markdown_report(verdict)
    assert "<script" not in text
    assert "](//elsewhere" not in markdown_report(verdict_of(("![](//elsewhere/p.gif)", "dog")))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {6}


def test_the_markdown_says_the_decision_first_and_names_the_verdict() -> None:
    verdict = verdict_of(("cat", "dog"))
    text = markdown_report(verdict)
    assert text.startswith("## promote: pets v2")
    assert verdict.digest[:12] in text


def test_the_picture_has_a_row_for_every_comparison() -> None:
    verdict = verdict_of(tuple(f"c{i}" for i in range(30)))
    labels = [label[2:] for label, _, _ in interval_rows(verdict)]
    assert labels == ["better than v1", *(f"class: c{i}" for i in range(30))]
    picture = interval_png(verdict)
    assert picture is not None
    assert picture.startswith(PNG)


def test_long_names_and_those_that_look_like_formulas_can_be_drawn() -> None:
    names = ("rust_$_and_$\\mold", "scratch_" * 10, "dent")
    figure = interval_figure(verdict_of(names))
    assert figure is not None
    shown = [label.get_text()[2:] for label in figure.axes[0].get_yticklabels()]
    assert shown == ["better than v1", f"class: {names[0]}", f"class: {names[1]}"[:37] + "…", "class: dent"]
    assert interval_png(verdict_of(names)) is not None


def test_marks_are_drawn_and_names_in_letters_that_the_font_lacks_stand_as_their_codes() -> None:
    verdict = verdict_of(("划痕",), superiority={"min_gain": 0.5})
    figure = interval_figure(verdict)
    assert figure is not None
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert shown == ["✗ better than v1", "✓ class: \\u5212\\u75d5"]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph")
        assert interval_png(verdict) is not None
    for label in ("✗ better than v1", "✓ class: 划痕"):
        assert f"<div class=label>{label}</div>" in interval_chart(verdict)


def test_the_markdown_has_no_picture_of_more_comparisons_than_fit_into_a_request() -> None:
    drawn, many = (markdown_report(verdict_of(tuple(f"c{i}" for i in range(classes)))) for classes in (39, 40))
    assert "](data:image/png" in drawn
    assert len(drawn.encode()) < 500_000
    assert "data:image" not in many
    assert "| class: c39 |" in many


def test_an_end_of_an_interval_has_the_same_figure_wherever_it_is_told() -> None:
    verdict = verdict_of(("cat",))
    (check,) = (one for one in verdict.checks if one.rule == "superiority")
    assert check.interval is not None
    assert f"between {check.interval.low_told} and {check.interval.high_told}" in check.why
    lower = check.interval.model_copy(update={"estimate": -0.02, "low": -0.08442, "high": 0.00001})
    told = verdict.model_copy(update={"interval": lower, "checks": (check.model_copy(update={"interval": lower}),)})
    figure = interval_figure(told)
    assert figure is not None
    for text in (interval_chart(told), figure.axes[0].texts[0].get_text()):
        assert "-0.0845 to +0.0001" in text
    assert "at least -0.0845 with" in told.reason
    assert dict(wording.figures(told))["at least, with 95 % confidence"] == "-0.0845"


PROVEN = "would be proven to be above"


@pytest.mark.parametrize(("images", "groups"), [(3, None), (12, None), (100, 12)])
def test_a_gate_set_that_can_prove_nothing_names_no_gain_that_it_could(images: int, groups: int | None) -> None:
    few, enough = verdict_of(("cat",), images=images, groups=groups), verdict_of(("cat",))
    assert few.smallest_detectable is not None
    assert few.outcome == "inconclusive"
    for verdict, said in ((few, False), (enough, True)):
        assert any(PROVEN in label for label, _ in wording.figures(verdict)) == said
        assert (PROVEN in str(check_table(verdict).caption)) == said


def test_two_models_that_answer_alike_tell_nothing_of_what_could_be_proven() -> None:
    same = verdict_of(("cat",), alike=True)
    assert same.interval is not None
    assert same.interval.standard_error == 0
    assert not any(PROVEN in label for label, _ in wording.figures(same))


def test_what_is_proven_by_luck_contradicts_nothing_and_a_lower_bound_is_never_shown_as_more() -> None:
    verdict = verdict_of(("cat",))
    assert verdict.interval is not None
    lucky = verdict.model_copy(
        update={
            "smallest_detectable": verdict.interval.estimate + 0.01,
            "interval": verdict.interval.model_copy(update={"low": 0.00096}),
        }
    )
    shown = dict(wording.figures(lucky))
    assert not any("smallest" in label for label in shown)
    assert "true difference that would be proven to be above zero with 80 % probability" in shown
    assert shown["at least, with 95 % confidence"] == "+0.0009"


def test_images_that_are_there_and_do_not_decide_are_not_said_to_be_enough() -> None:
    unbounded = verdict_of(("cat",), images=100, superiority={"confidence": 0.9999})  # by a thousand resamples
    assert unbounded.images_needed is not None
    assert unbounded.images_needed <= 100
    in_groups = verdict_of(("cat",), images=100, groups=12)
    assert in_groups.images_needed == 167  # 20 groups of that size
    close = verdict_of(("cat",), images=100, superiority={"min_gain": 0.09})
    assert close.images_needed is not None
    assert close.images_needed > 100
    for verdict, said in ((unbounded, False), (in_groups, True), (close, True)):
        assert any("would decide" in label for label, _ in wording.figures(verdict)) == said
        assert ("would decide" in str(check_table(verdict).caption)) == said


@pytest.mark.parametrize("images", [3, 60])
def test_unbounded_intervals_and_one_class_can_be_drawn(images: int) -> None:
    assert interval_png(verdict_of(("cat",), images=images)) is not None


def test_a_champion_that_no_rule_was_to_compare_with_is_not_denied() -> None:
    verdict = verdict_of(("cat",), superiority=None, non_inferiority=None, budget=None, group_by="absent")
    assert verdict.passed
    assert verdict.interval is None
    assert "v1 has 0.7" in verdict.reason
    assert verdict.reason.endswith("the difference was not judged")


def test_a_first_models_page_has_no_column_of_a_champion_that_there_is_not() -> None:
    verdict = verdict_of(("cat",), first=True)
    alone = verdict.evidence.model_copy(update={"champion_cost": None})
    page = html_report(verdict.model_copy(update={"evidence": alone}))
    costs = page.split("Speed and size")[1].split("</section>")[0]
    assert "9 ms" in costs
    assert "champion" not in costs
    assert costs.count("unknown") == 2  # memory and size, which were not measured


def test_a_first_model_has_no_picture_and_still_a_page() -> None:
    verdict = verdict_of(("cat", "dog"), first=True)
    assert interval_png(verdict) is None
    assert "First model" in html_report(verdict)
    assert "first model" in markdown_report(verdict)


@pytest.mark.browser
def test_marks_that_are_painted_as_backgrounds_are_printed_too(chromium: Chromium, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(
        html_report(verdict_of(("cat",)), worsened=[Example("7.png", 0.4, 0.8, ())], colours={"cat": (51, 204, 0)})
    )
    pdf = chromium.open(path.as_uri()).pdf()
    parts = re.findall(rb"/FlateDecode[^>]*>>\s*stream\r?\n(.*?)\r?\nendstream", pdf, re.S)
    filled = {colour for part in parts for colour in re.findall(rb"([\d. ]+) rg", zlib.decompress(part))}
    assert b" .2 .8 0" in filled
