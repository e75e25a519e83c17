"""Intake: reads the further fields of jobs for whoever submits them without having the app.

It is there for an app with `job_inputs`, whose model may have validators: the app's code, so that it holds no key, and
is shown nothing of a job but those fields.
"""

from __future__ import annotations

from pydantic import BaseModel

from airside.actors.job_inputs import Fields, InputsReading, fields_of, read_inputs
from airside.actors.rpc.layer import LayerConfig
from airside.actors.rpc.methods import INPUT_FIELDS, READ_INPUTS
from airside.actors.rpc.serving import serves
from airside.actors.wardens.watched import NOBODY, WatchedLayer, inside


class Intake(WatchedLayer):
    """The model of an app's `job_inputs`; a validator that never comes back holds it, and has it restarted."""

    def __init__(self, config: LayerConfig, model: type[BaseModel]) -> None:
        super().__init__(config)
        self._model = model

    @serves(INPUT_FIELDS)
    def fields(self, _: None) -> Fields:
        """Return which further fields a job may have."""
        return fields_of(self._model)

    @serves(READ_INPUTS)
    def read(self, given: list[bytes]) -> list[InputsReading]:
        """Return what becomes of each job's further fields, given as JSON objects."""
        return [self._read(each) for each in given]

    def _read(self, given: bytes) -> InputsReading:
        (reading,) = inside(self.pulse, NOBODY, read_inputs, self._model, [given])
        return reading
