"""`TenantSecrets`: what an executor gives a call of its tenant's secrets, read anew for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from airside.stack.ids import TenantId
from airside.tools.secrets.known import KnownSecrets, Secrets
from airside.tools.secrets.providers import SecretMissing, SecretsProvider, read_secrets
from airside.tools.secrets.redaction import Redactor

THREADS = 4
"""A provider answers from a file or from a service nearby; these are its own, so that tools which hang hold up none."""

MOST_S = 10.0


class TenantSecrets:
    """Asks the app's provider, and has what it gives known before anybody gets it."""

    def __init__(self, provider: SecretsProvider | None, known: KnownSecrets, *, in_threads: bool) -> None:
        self._provider = provider
        self._known = known
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="secrets") if in_threads else None

    def redactor_of(self, tenant: TenantId) -> Callable[[], Redactor]:
        """Return what says how a tenant's secrets, as they are known then, are taken out."""
        return partial(self._known.of, tenant)

    async def of(self, tenant: TenantId, names: tuple[str, ...], deadline_s: float) -> Secrets:
        """Return a tenant's secrets by name; raise `SecretMissing` within half of a call's time."""
        if not names:
            return Secrets()
        read = partial(read_secrets, self._provider, tenant, names)
        seconds = min(MOST_S, deadline_s / 2)
        try:
            if self._threads is None:
                found = read()
            else:
                async with asyncio.timeout(seconds):
                    found = await asyncio.get_running_loop().run_in_executor(self._threads, read)
        except TimeoutError:
            raise SecretMissing(f"the provider of secrets did not answer in {seconds:g} s") from None
        self._known.learn(tenant, found.values())
        return Secrets(found)

    def close(self) -> None:
        """Wait for no thread: each ends when its provider answers."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
