"""Intake: reads the further fields of jobs for whoever submits them without having the app.

It is there for an app with `job_inputs`, whose model may have validators: the app's code, so that it holds no key, and
is shown nothing of a job but those fields.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from airside.actors.job_inputs import Fields, Reading, fields_of, read_inputs
from airside.actors.layer import Layer, LayerConfig


class Intake(Layer):
    """The model of an app's `job_inputs`."""

    def __init__(self, config: LayerConfig, model: type[BaseModel]) -> None:
        super().__init__(config)
        self._model = model

    async def fields(self) -> Fields:
        """Return which further fields a job may have."""
        await self.ready()
        return fields_of(self._model)

    async def read(self, given: Sequence[bytes]) -> list[Reading]:
        """Return what becomes of each job's further fields, given as JSON objects."""
        await self.ready()
        return read_inputs(self._model, given)
