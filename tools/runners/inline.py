"""`InlineRunner`: tools' code on the executor's own event loop, where tests and simulations play it in their order."""

from __future__ import annotations

from typing import Any

from airside.tools.runners.jobs import ToolJob


class InlineRunner:
    """Runs every job where it is called: one that blocks holds up all of them."""

    level = None
    on_timeout = ""

    async def ready(self) -> None:
        """Do nothing."""

    async def run(self, job: ToolJob) -> Any:
        """Return what a job comes to."""
        try:
            return await job.perform()
        finally:
            job.over()

    def close(self) -> None:
        """Do nothing: it holds nothing."""
