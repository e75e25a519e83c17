"""What the process that started a stack keeps of it: the app as it was, what shows its output, how it is reloaded."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airside.actors.app import App, ValidatedApp
from airside.actors.client.fingerprint import Drift
from airside.actors.client.progress import is_in_notebook
from airside.actors.client.steps import Steps
from airside.actors.process.console import CAUGHT_UP_S, Console
from airside.stack.errors import AirsideError

LOOK_S = 1.0
"""Between two looks of one cell at whether the app's names mean something else: a look takes about a millisecond."""


_PRINTING = ("runtime", "executor")
"""The layers in which agents and tools run."""


def _cell() -> int:
    """Return the number of the notebook's cell that runs, 0 outside of notebooks: another one may define anything."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return int(getattr(shell, "execution_count", 0))


def _level_of_caller() -> int:
    """Return at which level of the stack, from who warns, the first frame is that is not Airside's."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("airside."):
        frame, level = frame.f_back, level + 1
    return level


class OwnedStack:
    """The starter's side of a stack: `run` starts its layers, `stop` ends them; `output` = prints are shown here."""

    def __init__(
        self,
        stack: str,
        app: ValidatedApp,
        run: Callable[[ValidatedApp], None],
        stop: Callable[[], None],
        *,
        output: bool,
    ) -> None:
        self._app = app
        self._run = run
        self._stop = stop
        self._drift = Drift(app.app)
        self._warned_of: dict[str, str] = {}
        self._looked = time.monotonic(), _cell()
        self._in_notebook = is_in_notebook()
        self._console = Console(stack, to_stdout=self._in_notebook) if output else None

    def warn_of_changes(self) -> None:
        """Warn, once for each change, that the stack runs agents or tools that are defined otherwise now."""
        now_s, cell = time.monotonic(), _cell()
        if now_s - self._looked[0] < LOOK_S and cell == self._looked[1]:
            return
        self._looked = now_s, cell
        changed = self._drift.changed()
        new = [name for name, found in changed.items() if found != self._warned_of.get(name)]
        if new:
            warnings.warn(
                f"{', '.join(new)}: defined otherwise now than when the stack was started, which runs the old "
                "definition; stack.reload(App(...)) has it run the new one",
                stacklevel=_level_of_caller(),
            )
        self._warned_of = changed

    def reload(self, app: App) -> None:
        """Have the stack run another app; if that does not come up, the one before runs again."""
        ready = app.checked()
        self._stop()
        try:
            self._run(ready)
        except BaseException:
            self._stop()
            self._run(self._app)
            raise
        self._app, self._drift, self._warned_of = ready, Drift(app), {}

    def catch_up(self, actors: Callable[[], Mapping[str, Any]]) -> Steps[None]:
        """In a notebook, wait a little until what was printed is shown: the cell that has its results ends then."""
        if self._console is not None and self._in_notebook:
            yield _CatchUp(self._console, actors)

    def close(self) -> None:
        """Show no more output."""
        if self._console is not None:
            self._console.close()


@dataclass(frozen=True, slots=True)
class _CatchUp:
    """That the console has shown what the layers have printed; or too long a time for that."""

    console: Console
    actors: Callable[[], Mapping[str, Any]]

    def now(self) -> None:
        """Wait for it in this thread."""
        with contextlib.suppress(AirsideError):  # the results are there, whatever has become of the stack since
            layers = [actor for name, actor in self.actors().items() if name.partition("/")[0] in _PRINTING]
            self.console.catch_up(layers)

    async def later(self) -> None:
        """Wait for it in a thread, as long as there is one free."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * CAUGHT_UP_S):
                await asyncio.to_thread(self.now)
