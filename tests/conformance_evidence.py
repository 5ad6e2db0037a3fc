"""Cases in which the evidence decides: leaks, how the export serves, what it costs."""

from __future__ import annotations

from typing import Any

from conformance_cases import Arguments, better, case, given, model

from ratchet.gate import (
    Cost,
    Evidence,
    ServesEvidence,
    find_leaks,
)

# --- leak ------------------------------------------------------------------------------------------------------------

GATE_IMAGES = {f"{i:04}.png": f"sha-{i}" for i in range(200)}


def leak(challenger: set[str] | None, champion: set[str] | None, gate: dict[str, str] = GATE_IMAGES) -> Evidence:
    return Evidence(leak=find_leaks(gate_images=gate, challenger_training=challenger, champion_training=champion))


@case("promote", "at least")
def no_leak() -> Arguments:
    return better({"leak": True}, evidence=leak({"sha-x"}, {"sha-y"}))


@case("reject", r"challenger was trained or selected on 1 gate images, such as '0007\.png'")
def a_gate_image_under_another_name_in_the_training_data() -> Arguments:
    return better({"leak": True}, evidence=leak({"sha-x", "sha-7"}, set()))


@case("reject", "champion was trained or selected on 2 gate images")
def a_gate_image_in_the_champions_training_data() -> Arguments:
    return better({"leak": True}, evidence=leak({"sha-x"}, {"sha-7", "sha-8"}))


@case("reject", "challenger was trained")
def a_first_model_that_saw_the_gate_set() -> Arguments:
    return given(model(0.76, 1), None, {"leak": True}, evidence=leak({"sha-1"}, None))


@case("reject", "is not known")
def training_data_that_nobody_recorded() -> Arguments:
    return better({"leak": True}, evidence=leak(set(), None))


@case("reject", "is not known")
def a_leak_rule_without_evidence() -> Arguments:
    return better({"leak": True})


@case("reject", "only 3 of 200")
def a_leak_search_over_a_few_images() -> Arguments:
    few = dict(list(GATE_IMAGES.items())[:3])
    return better({"leak": True}, evidence=leak(set(), set(), few))


# --- serves ----------------------------------------------------------------------------------------------------------

SERVES: dict[str, Any] = {"serves": {"max_difference": 1e-3}}


def probe(**changes: Any) -> Evidence:
    good = {
        "loaded": True,
        "finite": True,
        "output_shape": (1, 3, 64, 64),
        "expected_shape": (1, 3, 64, 64),
        "max_difference": 1e-5,
        "signature": "f32[3,64,64]",
        "champion_signature": "f32[3,64,64]",
    }
    return Evidence(serves=ServesEvidence.model_validate(good | changes))


@case("promote", "at least")
def an_export_that_serves() -> Arguments:
    return better(SERVES, evidence=probe())


@case("reject", "was not tried")
def an_export_that_nobody_tried() -> Arguments:
    return better(SERVES)


@case("reject", "does not load and answer: timed out")
def an_export_that_does_not_load() -> Arguments:
    return better(SERVES, evidence=probe(loaded=False, error="timed out"))


@case("reject", "output is not finite")
def an_export_that_answers_nan() -> Arguments:
    return better(SERVES, evidence=probe(finite=False))


@case("reject", "has shape")
def an_export_of_another_output_shape() -> Arguments:
    return better(SERVES, evidence=probe(output_shape=(1, 1, 64, 64)))


@case("reject", "differs from the trained model by 0.2")
def an_export_that_is_not_the_trained_model() -> Arguments:
    return better(SERVES, evidence=probe(max_difference=0.2))


@case("reject", "could not be compared with the trained model")
def an_export_whose_difference_is_nan() -> Arguments:
    return better(SERVES, evidence=probe(max_difference=float("nan")))


@case("reject", "signature is not the champion's")
def an_export_with_another_signature() -> Arguments:
    return better(SERVES, evidence=probe(signature="f32[1,64,64]"))


@case("reject", "signature could not be compared")
def an_export_without_a_signature() -> Arguments:
    return better(SERVES, evidence=probe(signature=None))


@case("promote", "first model")
def a_first_export_has_no_signature_to_keep() -> Arguments:
    return given(model(0.76, 1), None, SERVES, evidence=probe(champion_signature=None))


@case("reject", "does not load")
def a_first_model_that_does_not_load() -> Arguments:
    return given(model(0.76, 1), None, SERVES, evidence=probe(loaded=False, error="no such file"))


# --- budget ----------------------------------------------------------------------------------------------------------


def costs(mine: Cost | None, theirs: Cost | None = None) -> Evidence:
    return Evidence(challenger_cost=mine, champion_cost=theirs)


def cost(latency: float = 10.0, samples: int = 40, memory: float | None = 500.0, size: float | None = 50.0) -> Cost:
    return Cost(latency_ms=(latency,) * samples, memory_mb=memory, size_mb=size)


@case("promote", "at least")
def a_model_within_budget() -> Arguments:
    return better({"budget": {"latency_ratio": 1.2, "size_mb": 60}}, evidence=costs(cost(11), cost(10)))


@case("reject", "latency_p95 is 30 ms")
def a_model_that_is_too_slow() -> Arguments:
    return better({"budget": {"latency_p95_ms": 20}}, evidence=costs(cost(30)))


@case("reject", "latency_p95 is 90 ms")
def a_model_that_is_slow_one_time_in_ten() -> Arguments:
    mine = Cost(latency_ms=(10.0,) * 36 + (90.0,) * 4)
    return better({"budget": {"latency_p95_ms": 20}}, evidence=costs(mine))


@case("reject", "latency_p95 ratio is 1.5")
def a_model_slower_than_the_champion() -> Arguments:
    return better({"budget": {"latency_ratio": 1.2}}, evidence=costs(cost(15), cost(10)))


@case("reject", "not measured, or not often enough")
def a_latency_measured_three_times() -> Arguments:
    return better({"budget": {"latency_p95_ms": 20}}, evidence=costs(cost(10, samples=3)))


@case("reject", "not measured")
def a_champion_whose_cost_is_not_known() -> Arguments:
    return better({"budget": {"memory_ratio": 1.2}}, evidence=costs(cost()))


@case("reject", "memory was not measured")
def a_memory_that_is_nan() -> Arguments:
    return better({"budget": {"memory_mb": 900}}, evidence=costs(cost(memory=float("nan"))))


@case("reject", "size ratio is 2")
def a_model_twice_as_large() -> Arguments:
    return better({"budget": {"size_ratio": 1.5}}, evidence=costs(cost(size=100), cost()))


@case("reject", "size is 100 MB")
def a_first_model_that_is_too_large() -> Arguments:
    return given(model(0.76, 1), None, {"budget": {"size_mb": 60}}, evidence=costs(cost(size=100)))
