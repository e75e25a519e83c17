"""WatchedLayer: a layer whose node's Warden sees when its loop is held, kills it, and so has Ray restart it.

Each such layer shows its pulse to its node's Warden itself, again and again, for a Warden that was restarted knows of
none; so nobody need be told whom to watch, and the Driver is watched like the others.  It begins when the layer has
begun: a start that takes long is not cut short, for it would begin again and take as long.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import ray
from ray.exceptions import RayError

from airside.actors.process.pulse import PulseWriter, Where
from airside.actors.rpc.layer import BEAT_S, Layer
from airside.actors.rpc.names import NAMESPACE
from airside.actors.wardens.warden import Bounds
from airside.stack.cycle.agent_call import Pulse
from airside.stack.ids import RunId

SHOWN_S = 2.0
"""Between two times that a layer says where its pulse is: how long a Warden that was restarted does not see it."""

LOCKED = 3.0
"""So many times as long may another thread keep the interpreter's lock from the loop: a query with very many rows, or
a model being loaded, is work, and ends."""

NOBODY = RunId("")

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


def inside(
    pulse: Pulse, run_id: RunId, work: Callable[Given, Answer], *args: Given.args, **named: Given.kwargs
) -> Answer:
    """Do work for a run, which is named should the loop not come back from it."""
    pulse.enter(run_id)
    try:
        return work(*args, **named)
    finally:
        pulse.leave()


class WatchedLayer(Layer):
    """Base of the layers of which there is one.

    Whoever works through items says `pulse.leave()` after each, or does it `inside`, so that a loop with much to do is
    not taken for one that is held.
    """

    def bounds(self) -> Bounds:
        """Return for how long its loop may be held."""
        stall_s = self.config.settings.layer_stall_s
        return Bounds(stall_s, stall_s * LOCKED)

    def begun(self) -> None:
        """Begin to beat, and show the Warden where."""
        context = ray.get_runtime_context() if ray.is_initialized() else None
        if context is None or not context.get_actor_id():
            return  # not a process of its own
        writer = self.pulse = PulseWriter()
        self._beating = asyncio.ensure_future(self._keep_turning(writer))
        cell = self.config.cell
        layer = str(context.get_actor_name()).removeprefix(cell.prefix)
        warden = cell.actor_name("warden", self._node[:12])
        threading.Thread(target=self._show, args=(layer, warden, writer.where), name="show", daemon=True).start()

    async def _keep_turning(self, writer: PulseWriter) -> None:
        while True:
            writer.turn()
            await asyncio.sleep(BEAT_S)

    def _show(self, layer: str, warden: str, where: Where) -> None:
        bounds = self.bounds()
        while True:
            with contextlib.suppress(RayError, ValueError, TimeoutError):  # it is not there, or not yet
                handle = ray.get_actor(warden, NAMESPACE)
                # `ray.get` would warn of a blocked loop: this thread has none.
                while handle.look_after.remote(layer, where, bounds).future().result(bounds.held_s):
                    time.sleep(SHOWN_S)
            time.sleep(SHOWN_S)
