"""Ending a run from outside, when no cycle carries it: the same events its own machine would have made."""

from __future__ import annotations

from collections.abc import Sequence

from airside.stack.journal.journaling import Append
from airside.stack.journal.stream import append_of
from airside.stack.run import events as ev
from airside.stack.run.machine import RunMachine


def termination_append(
    bodies: Sequence[str | bytes], event: ev.KillRequested | ev.CancelRequested, claim: str
) -> Append | None:
    """Return the append that ends a run under an epoch of its own, so that nobody else can go on with it.

    `bodies` are the run's events, oldest first.  None if it is over already.
    """
    machine = RunMachine.replay(ev.decode_event(body) for body in bodies)
    if machine.is_over:
        return None
    activated = ev.RunActivated(epoch=machine.state.epoch + 1, claim=claim, at_us=event.at_us)
    machine.handle(activated)
    machine.handle(event)
    assert machine.state.outcome is not None
    submitted = machine.state.submitted
    ended = ev.RunEnded(
        outcome=machine.state.outcome, usage=machine.usage(), job_id=submitted.request.job_id, at_us=event.at_us
    )
    tenant, epoch = submitted.identity.tenant, activated.epoch
    return append_of(tenant, submitted.run_id, (activated, event, ended), first_seq=len(bodies), epoch=epoch)
