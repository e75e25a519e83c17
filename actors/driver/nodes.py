"""Nodes: the driver's view of the cluster's nodes, each through its Warden; leases, deaths, and nodes that are lost.

Every process that acts has a lease which the driver renews through its node's Warden at every heartbeat.  A node whose
Warden is not heard of any more, for whatever reason (it died, it stands still, the network is cut), is lost when the
last lease it can hold is over: from then on nothing on it acts, and what worked there is taken up elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Protocol

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from airside.actors.process.pulse import Where, boot_s
from airside.actors.process.stalls import Reading
from airside.actors.rpc.layer import LayerConfig, as_actor, logger
from airside.actors.rpc.names import NAMESPACE
from airside.actors.wardens.warden import DEATH_S, Seen, Stall, Warden

LOOK_FOR_NODES_S = 1.0

MARGIN_S = 0.5
"""By how much two machines' clocks may have drifted apart, and a timer be late, within one lease."""


class Watcher(Protocol):
    """Whom `Nodes` asks whom to watch, and tells what became of them."""

    def watched(self, node_id: str) -> Mapping[str, Where]:
        """Return the processes of a node, by key."""

    def stalled(self, key: str, stall: Stall) -> None:
        """Take in that a process's loop is held."""

    def died(self, key: str, excused: bool) -> None:
        """Take in that a process is certainly dead, or that its lease is over; `excused` = nobody in it did that."""

    def layer_held(self, layer: str, stall: Stall) -> None:
        """Take in that a layer was killed because its loop was held."""

    def late(self, late_s: float) -> None:
        """Take in how late the latest process of a node is, or the watch itself."""


class Node:
    """One node.  `ends_s` is when the last lease its Warden can have given is over, on this machine's clock."""

    def __init__(self, node_id: str, handle: Any) -> None:
        self.node_id = node_id
        self.handle = handle
        self.stamp_s = 0.0
        self.heard_s = boot_s()
        self.ends_s = self.heard_s


class Nodes:
    """The nodes that are alive."""

    def __init__(self, config: LayerConfig, watcher: Watcher) -> None:
        self._config = config
        self._watcher = watcher
        self._nodes: dict[str, Node] = {}
        self._keeping: dict[str, asyncio.Task[None]] = {}

    async def watch(self) -> None:
        """Find nodes and look after them, for ever."""
        while True:
            await self.look_for_nodes()
            for task in self._keeping.values():
                if task.done():
                    task.result()  # an error of the watch itself must not pass in silence
            await asyncio.sleep(LOOK_FOR_NODES_S)

    async def look_for_nodes(self) -> None:
        """Give every node that Ray knows alive its Warden."""
        for entry in await asyncio.to_thread(ray.nodes):
            node_id = entry["NodeID"]
            if entry["Alive"] and node_id not in self._nodes:
                self._nodes[node_id] = node = Node(node_id, self._warden(node_id))
                self._keeping[node_id] = asyncio.ensure_future(self._keep(node))

    def _warden(self, node_id: str) -> Any:
        options: dict[str, Any] = {
            "name": self._config.cell.actor_name("warden", node_id[:12]),
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
            "max_restarts": -1,
            "num_cpus": 0,
            "enable_task_events": self._config.settings.task_events,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False),
        }
        return as_actor(Warden).options(**options).remote(self._config)

    async def _keep(self, node: Node) -> None:
        """Renew a node's leases at every heartbeat until it is lost."""
        lease_s, heartbeat_s = self._config.settings.lease_s, self._config.settings.heartbeat_s
        while True:
            began_s = boot_s()
            watched = self._watcher.watched(node.node_id)
            if node.stamp_s:  # this message can lengthen leases up to here, whenever it arrives
                node.ends_s = max(node.ends_s, node.heard_s + lease_s)
            try:
                async with asyncio.timeout(lease_s):
                    seen = Seen(*await node.handle.beat.remote(node.stamp_s, dict(watched)))
            except (RayError, TimeoutError):
                if boot_s() > node.ends_s + MARGIN_S:
                    self._lose(node)
                    return
            else:
                node.stamp_s, node.heard_s = seen.stamp_s, boot_s()
                self._tell(seen, node.node_id, watched)
                self._watcher.late(max(seen.late_s, boot_s() - began_s))
            await asyncio.sleep(heartbeat_s)

    def _tell(self, seen: Seen, node_id: str, asked: Mapping[str, Where]) -> None:
        now = self._watcher.watched(node_id)
        for key in seen.dead:
            if now.get(key) == asked[key]:  # else another process has its place meanwhile
                self._watcher.died(key, key in seen.lapsed)
        for key, stall in seen.stalls.items():
            self._watcher.stalled(key, Stall(*stall))
        for layer, run_id, held_s, where in seen.held:
            self._watcher.layer_held(layer, Stall(run_id, held_s, where))

    def _lose(self, node: Node) -> None:
        """Give up a node whose leases are over; should Ray know it alive, it is found again with new processes only."""
        held = list(self._watcher.watched(node.node_id))
        logger.warning("node %s is lost, with %s", node.node_id, held, extra={"action": "node_lost"})
        for key in held:
            self._watcher.died(key, excused=True)
        del self._nodes[node.node_id], self._keeping[node.node_id]

    def leased(self, node_id: str) -> None:
        """Note that a process of the node may have begun a lease of its own just now."""
        node = self._nodes.get(node_id)
        if node is not None:
            node.ends_s = max(node.ends_s, boot_s() + self._config.settings.lease_s)

    async def read(self, node_id: str, where: Where) -> Reading | None:
        """Return a process's pulse, None if it cannot be had."""
        found = await self._ask(node_id, "read", where)
        return None if found is None else Reading(*found)

    async def kill(self, node_id: str, where: Where, going_s: float = 0.0) -> bool:
        """End a process through its node's Warden; return whether it is certainly dead.

        One that was told to go may do so by itself for `going_s`.
        """
        return bool(await self._ask(node_id, "kill", where, going_s))

    async def _ask(self, node_id: str, method: str, where: Where, *args: Any) -> Any:
        node = self._nodes.get(node_id)
        if node is None:
            return None
        with contextlib.suppress(RayError, TimeoutError):
            async with asyncio.timeout(DEATH_S + 1):
                return await getattr(node.handle, method).remote(where, *args)
        return None

    def stats(self) -> dict[str, float]:
        """Return for how many seconds each node's leases last."""
        return {node_id: round(node.ends_s - boot_s(), 3) for node_id, node in self._nodes.items()}
