"""What the process that started a stack keeps of it: the app as it was, what shows its output, how it is reloaded."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable

from airside.actors.app import App, ValidatedApp
from airside.actors.client.fingerprint import Drift
from airside.actors.process.console import Console

LOOK_S = 1.0
"""Between two looks of one cell at whether the app's names mean something else: a look takes about a millisecond."""


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
        self._console = Console(stack) if output else None

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

    def close(self) -> None:
        """Show no more output."""
        if self._console is not None:
            self._console.close()
