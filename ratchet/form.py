"""The form in which a person asks for a retraining, and its one translation into overrides."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema

from ratchet.errors import PolicyError
from ratchet.gate.policy import Policy
from ratchet.settings import Settings
from ratchet.trees import entries

AS_CONFIGURED = "as configured"
"""The choice that leaves a thing to the experiment. Null would do too, but Prefect's pages show it as a switch of types."""
OWN = "own"
"""The choice of a policy that is filled in beside it."""

Architecture = Literal[
    "unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "pan", "deeplabv3", "deeplabv3plus", "upernet", "segformer"
]  # fmt: skip
Encoder = Literal[
    "resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2", "efficientnet-b0", "efficientnet-b3", "efficientnet-b5",
    "densenet121", "mit_b0", "mit_b2", "tu-tf_efficientnet_lite0", "tu-convnext_tiny",
]  # fmt: skip
Direction = Literal["as configured", "max", "min"]
Destination = Literal["as configured", "staging", "production"]


@dataclass(frozen=True)
class EntryOf:
    """Lets a form offer the entries of a configuration group, the user's own among them; composing checks the choice."""

    group: str
    others: tuple[str, ...] = ()

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Add the choices as they are when the form is made."""
        return {**handler(schema), "enum": [AS_CONFIGURED, *entries(self.group), *self.others]}


Experiment = Annotated[str, EntryOf("experiment")]
PolicyPreset = Annotated[str, EntryOf("gate")]
PolicyChoice = Annotated[str, EntryOf("gate", others=(OWN,))]
Epochs = Annotated[int, Field(ge=0, le=1000)]
Hours = Annotated[float, Field(gt=0, le=2160)]


class RetrainForm(Settings):
    """What a person may choose. What is left open stays as the experiment says; `overrides` win over all of it."""

    model: str = ""
    experiment: Experiment = AS_CONFIGURED
    data: str = ""
    architectures: tuple[Architecture, ...] = ()
    encoders: tuple[Encoder, ...] = ()
    epochs: Epochs = 0
    metric: str = ""
    mode: Direction = "as configured"
    policy: PolicyPreset = AS_CONFIGURED
    to: Destination = "as configured"
    overrides: tuple[str, ...] = ()


def chosen_policy(named: str, own: Policy) -> Policy | str | None:
    """What a person chose to judge by; None: as configured. Raises `PolicyError` where they filled in what would not count."""
    if named != OWN and own != Policy():
        raise PolicyError(
            f"own_policy was filled in, but policy={named}: choose policy=own, or leave own_policy as it was."
        )
    return own if named == OWN else None if named == AS_CONFIGURED else named


_KEYS = {
    "experiment": "experiment",
    "policy": "gate",
    "data": "datamodule.data_path",
    "architectures": "backbone.model.arch",
    "encoders": "backbone.model.encoder_name",
    "epochs": "trainer.max_epochs",
    "model": "retrain.model",
    "metric": "retrain.metric",
    "mode": "retrain.mode",
    "to": "retrain.to",
}


def overrides_of(form: RetrainForm) -> list[str]:
    """Translate the form into overrides. The free ones come last, and replace what the form says of the same key."""
    free = {_key(override) for override in form.overrides}
    chosen = {key: getattr(form, field) for field, key in _KEYS.items() if key not in free}
    return [
        *(f"{key}={written(value)}" for key, value in chosen.items() if value and value != AS_CONFIGURED),
        *form.overrides,
    ]


def form_of(overrides: Iterable[str]) -> RetrainForm:
    """Fill the form in from overrides, so that a person sees fields; what no field can say stays an override."""
    fields: dict[str, Any] = {}
    free: list[str] = []
    for override in overrides:
        filled = _field_of(override)
        if filled is None or filled.keys() & fields.keys():
            free.append(override)
        else:
            fields |= filled
    return RetrainForm(**fields, overrides=tuple(free))


def _field_of(override: str) -> dict[str, Any] | None:
    """The field that says the very same; None where there is none."""
    key, _, text = override.partition("=")
    for field in (field for field, own in _KEYS.items() if own == key):
        several = field in ("architectures", "encoders")
        try:
            form = RetrainForm.model_validate({field: tuple(text.split(",")) if several else text})
        except ValidationError:
            return None
        return {field: getattr(form, field)} if overrides_of(form) == [override] else None
    return None


_NO_TEXT = {"true", "false", "null", "nan", "inf"}


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").strip()


def written(value: str | int | tuple[str, ...]) -> str:
    """Write a value in Hydra's grammar; several make a sweep."""
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, int) or (re.fullmatch(r"[A-Za-z][A-Za-z0-9_/-]*", value) and value.lower() not in _NO_TEXT):
        return str(value)
    # Inside quotes a backslash stands for itself, except before a quote.
    return "'" + re.sub(r"(\\*)('|$)", r"\1\1\2", value).replace("'", "\\'") + "'"
