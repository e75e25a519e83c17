"""What is known at the start to be refused later: what has no price, where runs share a budget of what things cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from airside.stack.budget.reservations import PRICED
from airside.stack.directory import Directory
from airside.stack.policy.approvers import name_list
from airside.stack.run.agents import price_of
from airside.stack.schema.toolspec import ToolSpec


def unpriced(directory: Directory, specs: Sequence[ToolSpec], agents: Mapping[str, object]) -> tuple[str, ...]:
    """Return a sentence for the tools, and one for the agents, without a price that some tenants' budgets ask for.

    Every call of such a tool, and every decision of such an agent, is refused there as `price_unknown`.
    """
    tenants = sorted(directory.metered(PRICED))
    tools = sorted(spec.name for spec in specs if spec.cost_microusd is None)
    free_agents = sorted(name for name, agent in agents.items() if price_of(agent) is None)
    if not tenants:
        return ()
    where = f"runs of {name_list('tenant', tenants)} share a budget of cost or tokens"
    found = []
    if tools:
        found.append(
            f"{name_list('tool', tools)} cannot be called: {where}, and without cost_microusd (0 = free) every call is "
            "refused as price_unknown"
        )
    if free_agents:
        found.append(
            f"{name_list('agent', free_agents)} cannot decide: {where}, and without @priced(...) every decision is "
            "refused as price_unknown"
        )
    return tuple(found)


def unaffordable(directory: Directory, agents: Mapping[str, object]) -> tuple[str, ...]:
    """Return a sentence for each agent of which one decision may cost more than the runs of some tenants may use."""
    found = []
    for name, agent in sorted(agents.items()):
        price = price_of(agent)
        if price is None:
            continue
        for unit, limit in (("tokens", "max_tokens"), ("cost_microusd", "max_cost_microusd")):
            most = getattr(price, unit)
            short = sorted(
                tenant
                for tenant, entry in directory.tenants.items()
                if any(most > getattr(entry.limits_of(each), limit) for each in entry.principals.values())
            )
            if short:
                found.append(
                    f"agent {name} may not be able to decide: one decision is reserved at {most:,} {unit}, more than "
                    f"{limit} of {name_list('tenant', short)}; raise that, or lower the price (of a model: max_tokens, "
                    "max_prompt_bytes)"
                )
    return tuple(found)
