"""`BatchHandle`: a batch that somebody runs, looked at and changed from any process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from airside.actors.client.display.batches import draw_summary
from airside.actors.client.display.bundle import Asking, bundle
from airside.actors.client.display.drawing import Drawing
from airside.actors.client.display.listed import Kinds
from airside.actors.client.results import PendingApproval
from airside.actors.journal.batches import BatchSummary, read_batch, show_batch
from airside.actors.journal.overview import list_runs
from airside.actors.journal.story import ReadableJournal
from airside.stack.calling import explain_absent, explain_misuse_of_methods
from airside.stack.errors import InvalidInput
from airside.stack.operations.batches import BatchChange, BatchSettings, BatchState
from airside.stack.operations.overview import ACTIVE
from airside.stack.values import Limits

_MOST_ACTIVE = 1000
"""Runs of a batch that are looked through for what they wait for."""

Order = Callable[[str, BatchChange, str], None]
"""Has the driver put a change of a batch on record, and why it is made."""


@explain_absent(batch="id", name="id", status="show().phase", phase="show().phase")
@explain_misuse_of_methods
class BatchHandle:
    """A batch of a stack.  Every change is put on record with who made it and why, and followed within a second or two.

    The changes need the stack's keys; raise `Misuse` for one that means nothing as the batch stands.
    """

    def __init__(
        self,
        batch: str,
        journal: ReadableJournal,
        order: Order,
        pending: Callable[[], Sequence[PendingApproval]] = tuple,
    ) -> None:
        self.id = batch
        self._journal = journal
        self._order = order
        self._pending = pending

    def __repr__(self) -> str:
        return f"BatchHandle({self.id})"

    def drawn(self) -> Drawing:
        """Return how it stands, to be seen."""
        found = self.show()
        return draw_summary(found, self.waiting(found))

    def _repr_mimebundle_(self, include: Kinds = None, exclude: Kinds = None) -> dict[str, str]:
        answer, problem = Asking().ask(self.drawn)
        return bundle(lambda: answer or Drawing(title=repr(self), notes=(problem,)), include, exclude)

    def show(self) -> BatchSummary:
        """Return how it stands; raise `InvalidInput` if there is none of this name."""
        return show_batch(self._journal, self.id)

    def waiting(self, found: BatchSummary) -> list[str]:
        """Return the ids of the approvals that runs of it wait for, oldest first; none where no stack is up."""
        if not any(each.status == ACTIVE for each in found.outcomes):
            return []
        runs = {run.run_id for run in list_runs(self._journal, batch=self.id, status=ACTIVE, limit=_MOST_ACTIVE)}
        return [each.approval_id for each in self._pending() if each.run_id in runs]

    def state(self) -> BatchState:
        """Return what its stream says, which is nothing of a batch there is not."""
        return read_batch(self._journal, self.id)

    def pause(self, *, why: str = "") -> None:
        """Submit no more of its jobs; what is under way goes on."""
        self.change(BatchChange(action="pause"), why)

    def resume(self, *, why: str = "") -> None:
        """Take a pause back, or a cancellation, so that the batch may be taken up again."""
        self.change(BatchChange(action="resume"), why)

    def cancel(self, *, why: str = "") -> None:
        """Submit no more of its jobs, and withdraw those under way."""
        self.change(BatchChange(action="cancel"), why)

    def retune(
        self,
        *,
        concurrency: int | None = None,
        rate_per_s: float | None = None,
        priority: int | None = None,
        limits: Mapping[str, int] | None = None,
        why: str = "",
    ) -> None:
        """Change how its further jobs are submitted; what is not given stays as it is.

        `concurrency` jobs are under way at once, `rate_per_s` are submitted a second (0: as many as there is room for),
        of their tenant's runs those of a higher `priority` (-100 to 100) begin first, and their limits are lowered.
        """
        if limits is not None:
            Limits().lowered(dict(limits))
        values = {"concurrency": concurrency, "rate_per_s": rate_per_s, "priority": priority, "limits": limits}
        given = {name: value for name, value in values.items() if value is not None}
        try:
            settings = msgspec.convert(given, BatchSettings)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"batch {self.id}: {error}") from None
        self.change(BatchChange(action="retune", settings=settings), why)

    def requeue(self, job_ids: Iterable[str], *, why: str = "") -> None:
        """Run jobs of it that have ended again, by their ids, once the others have begun."""
        self.change(BatchChange(action="requeue", job_ids=tuple(dict.fromkeys(job_ids))), why)

    def change(self, change: BatchChange, why: str = "") -> None:
        """Put a change on record."""
        self._order(self.id, change, why)
