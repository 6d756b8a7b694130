"""The heartbeat: a phantom study that goes the whole way on a schedule, to show that the way is open."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pacs_node.config.units import AETitle, Duration, Section


class Heartbeat(Section):
    """How often a phantom is sent, and the only place where its results go."""

    destination: str  # a folder, or one that is marked `test: true`
    every: Duration = timedelta(hours=1)  # it is sent
    within: Duration = timedelta(minutes=15)  # its results have to be there; else an alert says how far it came
    modality: Literal["CT", "MR", "PT", "US"] = "CT"  # of the phantom
    region: str | None = None  # of the body; null: the usual one of the modality
    slices: int = Field(12, ge=1, le=100)  # of the phantom
    address: str | None = None  # where it is sent; null: this machine
    port: Annotated[int, Field(ge=1, le=65535)] | None = None  # null: node.port
    sent_as: AETitle | None = None  # calling AE title; null: the first of node.ae_titles

    @model_validator(mode="after")
    def _one_at_a_time(self) -> Heartbeat:
        if self.within <= timedelta(0) or self.every < self.within:
            raise ValueError("within is zero or longer than every: a heartbeat has to be back before the next one leaves")
        return self
