"""What a person sees and clicks, in a real browser: the form, the run's page, the approval, the model's page in MLflow."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from browser import Chromium
from browser import chromium as chromium  # noqa: PLC0414 - a fixture
from conftest import TINY, WITHOUT_RULES
from playwright.sync_api import Page, expect
from prefect_service import Service, waited
from prefect_service import prefect_service as prefect_service  # noqa: PLC0414 - a fixture
from registry_backends import mlflow_server
from test_comparison import comparison, trial

from ratchet.comparison import draw_page

MODEL = "parts_model"
SHAPES = "generic/shapes/segmentation/smp"
SERVE = "import json, sys; from flows.retrain import retrain; retrain.serve('on-demand', parameters=json.loads(sys.argv[1]))"

# The tests train for seconds, and promote whatever comes out.
QUICK = [*TINY[1:], *WITHOUT_RULES]
# The pictures show what a retraining looks like.
SHOWN = ["datamodule.months=4", "datamodule.images_per_month=100", "core.name=parts", "trainer.accelerator=cpu"]


@dataclass(frozen=True)
class Pages:
    """A Prefect server, a process that runs the deployment, an MLflow server, and the browser."""

    prefect: str
    mlflow: str
    service: Service
    chromium: Chromium


@pytest.fixture(scope="module")
def pages(prefect_service: Service, chromium: Chromium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    home = tmp_path_factory.mktemp("pages")
    server = mlflow_server(home, f"sqlite:///{home}/mlflow.db")
    mlflow = next(server)
    overrides = SHOWN if chromium.pictures else QUICK
    parameters = {"experiment": SHAPES, "encoders": ["mobilenet_v2"], "metric": "val_iou", "overrides": overrides}
    with (home / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, json.dumps(parameters)],
            env=os.environ | {"RATCHET_HOME": str(home), "MLFLOW_TRACKING_URI": mlflow},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        waited(lambda: "being served" in (home / "serve.log").read_text() or None, "the served deployment")
        yield Pages(prefect_service.api.removesuffix("/api"), mlflow, prefect_service, chromium)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        server.close()


@pytest.mark.browser
@pytest.mark.flow
@pytest.mark.server
@pytest.mark.trains
@pytest.mark.slow
def test_a_person_retrains_approves_and_looks_at_the_model(pages: Pages) -> None:
    if pages.chromium.pictures:
        _put_a_first_model_into_production(pages)
    page = pages.chromium.open(pages.prefect)
    _fill_in_the_form(pages, page)
    _watch_the_run(pages, page)
    _approve(pages, page)
    _look_at_the_model(pages)


def _put_a_first_model_into_production(pages: Pages) -> None:
    run = pages.service.start("retrain/on-demand", model=MODEL, architectures=["unet"], epochs=12)
    assert pages.service.wait(run, seconds=1200).state_name == "promoted"


def _fill_in_the_form(pages: Pages, page: Page) -> None:
    page.get_by_role("link", name="Deployments").click()
    page.get_by_role("link", name="on-demand", exact=True).click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()
    page.get_by_label("model (Optional)").fill(MODEL)
    for architecture in ("unet", "fpn"):
        page.get_by_label("Select architectures").click()
        page.get_by_role("option", name=architecture, exact=True).click()
        page.keyboard.press("Escape")
    page.get_by_label("epochs (Optional)").fill("5000")
    page.get_by_role("button", name="Submit").click()
    refused = page.get_by_label("epochs (Optional)").evaluate("field => field.validationMessage")
    assert "1000" in refused
    assert page.url.split("?")[0].endswith("/run")
    page.get_by_label("epochs (Optional)").fill("24" if pages.chromium.pictures else "1")
    page.get_by_label("approval (Optional)", exact=True).click()
    _show_form(pages, page)
    page.get_by_role("button", name="Submit").click()


def _show_form(pages: Pages, page: Page) -> None:
    if pages.chromium.pictures:
        page.set_viewport_size({"width": 1280, "height": 1960})
        page.evaluate("window.scrollTo(0, 0)")
        pages.chromium.picture(page, "form", box=(256, 150, 1280, 1760))
        page.set_viewport_size({"width": 1280, "height": 900})


def _watch_the_run(pages: Pages, page: Page) -> None:
    runs = waited(
        lambda: [r for r in pages.service.runs("retrain/on-demand") if r.parameters.get("approval")] or None, "the run"
    )
    page.goto("about:blank")  # the page of what runs turns a wheel, which costs a browser without a GPU a whole core
    pages.service.wait(runs[-1], until="Suspended", seconds=1200 if pages.chromium.pictures else 300)
    page.goto(f"{pages.prefect}/v2/runs/flow-run/{runs[-1].id}?tab=Artifacts")
    asked = re.compile(rf"{MODEL}: 2 trials → v\d waits for approval")
    expect(page.get_by_text(asked).first).to_be_visible()
    expect(page.get_by_text(f"model:{MODEL}").first).to_be_visible()
    expect(page.get_by_text("Suspended", exact=True).first).to_be_visible()
    page.get_by_role("link", name="retrain-parts-model").first.wait_for()
    page.get_by_role("link", name="retrain-parts-model").first.click()
    expect(page.get_by_role("heading", name=re.compile(r"v\d waits for approval")).first).to_be_visible()
    page.get_by_role("link", name=re.compile(r"^[0-9a-f]{8}$")).first.click()  # of those with this key, the newest
    expect(page.get_by_role("link", name="unet").first).to_have_attribute("href", re.compile(rf"^{pages.mlflow}/#/exp"))
    expect(page.get_by_role("cell", name="★")).to_be_visible()
    expect(page.get_by_text(re.compile(rf"promote: {MODEL} v\d: IoU")).first).to_be_visible()
    curves = page.get_by_role("img", name="Training curves")
    waited(lambda: curves.evaluate("image => image.naturalWidth") or None, "the picture of the curves")
    pages.chromium.picture(page, "report")
    assert "/artifacts/artifact/" in page.url  # where the question leads to
    page.goto(f"{pages.prefect}/v2/runs/flow-run/{runs[-1].id}")


def _approve(pages: Pages, page: Page) -> None:
    page.get_by_role("button", name="Open menu").first.click()
    page.get_by_role("menuitem", name="Resume").click()
    question = page.get_by_role("dialog")
    expect(question.get_by_text(re.compile(rf"May v\d of {MODEL} go to production")).first).to_be_visible()
    question.get_by_label("Select decision").click()
    page.get_by_role("option", name="approve", exact=True).click()
    question.get_by_label("Name", exact=True).fill("Anna")
    question.get_by_label("Comment (Optional)").fill("the edges are sharp")
    pages.chromium.picture(page, "approval")
    question.get_by_role("button", name="Resume").click()
    promoted = re.compile(rf"{MODEL}: 2 trials → v\d promoted")
    expect(page.get_by_text(promoted).first).to_be_visible(timeout=300_000)
    expect(page.get_by_text("verdict:promote").first).to_be_visible()
    pages.chromium.picture(page, "promoted")


def _look_at_the_model(pages: Pages) -> None:
    page = pages.chromium.open(f"{pages.mlflow}/#/models/{MODEL}")
    version = 2 if pages.chromium.pictures else 1
    expect(page.get_by_text(f"v{version} approved").first).to_be_visible()
    expect(page.get_by_text("the edges are sharp").first).to_be_visible()
    expect(page.get_by_text("@ production").first).to_be_visible()
    pages.chromium.picture(page, "model", box=(200, 0, 948, 900))
    page.goto(f"{pages.mlflow}/#/models/{MODEL}/versions/{version}")
    expect(page.get_by_text("Production", exact=True).first).to_be_visible()
    link = page.locator(f'a[href^="{pages.prefect}/runs/flow-run/"]')
    expect(link.first).to_be_visible()


CUT_OFF = """(charts) => charts.flatMap((chart) => {
    const whole = chart.getBoundingClientRect()
    return [...chart.querySelectorAll("text")].filter((text) => {
        const part = text.getBoundingClientRect()
        return part.left < whole.left - 1 || part.right > whole.right + 1
    }).map((text) => text.textContent)
})"""
"""The texts that lie beyond a side of their chart, where nobody can scroll to."""


@pytest.mark.browser
def test_the_charts_of_a_comparison_can_be_read_on_a_phone(chromium: Chromium, tmp_path: Path) -> None:
    trials = [trial(rank, name=f"unet timm-efficientnet-b3 lr=0.00{rank}91") for rank in range(8)]
    path = tmp_path / "comparison.html"
    path.write_text(draw_page(comparison(trials)), encoding="utf-8")
    page = chromium.open(path.as_uri())
    for width in (390, 650, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("svg text").first.evaluate("text => text.getBoundingClientRect().height") > 9
        assert page.locator("svg").evaluate_all(CUT_OFF) == []
