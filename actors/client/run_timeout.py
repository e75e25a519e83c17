"""`RunTimeout`: what both a stack and a client of its HTTP API, which has no Ray, raise of a run that takes long."""

from __future__ import annotations

from airside.stack.errors import notebook_traceback


class RunTimeout(TimeoutError):
    """A run has not ended in time; it goes on.

    `standing` says where it stood then: what it waits for, or is at.  It is empty where that was not looked for.
    """

    _render_traceback_ = notebook_traceback

    def __init__(self, run_id: str, timeout_s: float, standing: str) -> None:
        super().__init__(f"{run_id} has not ended in {timeout_s:g} s" + (f": {standing}" if standing else ""))
        self.run_id = run_id
        self.timeout_s = timeout_s
        self.standing = standing

    def __reduce__(self) -> tuple[type[RunTimeout], tuple[str, float, str]]:
        return type(self), (self.run_id, self.timeout_s, self.standing)
