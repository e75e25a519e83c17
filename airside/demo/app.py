"""The demo's app: a pipeline gather -> draft -> finalise, and three agents that misbehave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airside import Action, App, Finish, Pipeline, SingleAgent, Spend, View, priced
from airside.demo.crm import crm_tools
from airside.demo.mail import mail_tool
from airside.directory import Directory, Principal, Tenant

REQUEST = "Prepare a commercial proposal, align risky points, and send the final version to the customer"
THOUGHT = Spend(tokens=900, cost_microusd=1_200)
"""What a decision of the demo's agents is priced at."""


@priced(tokens=THOUGHT.tokens, cost_microusd=THOUGHT.cost_microusd)
def gather(view: View) -> Action | Finish:
    """Find out who the customer is and what is risky."""
    customer, results = view.inputs()["customer"], [record.result for record in view.own_history()]
    if len(results) == 0:
        return Action(tool="crm_customer", arguments={"customer": customer}, spend=THOUGHT)
    if len(results) == 1:
        return Action(tool="crm_risks", arguments={"customer": customer}, spend=THOUGHT)
    return Finish(answer={"customer": results[0].value(), "risks": results[1].value()}, spend=THOUGHT)


@priced(tokens=THOUGHT.tokens, cost_microusd=THOUGHT.cost_microusd)
def draft(view: View) -> Action | Finish:
    """Write the proposal, with the counter-proposals to what is risky."""
    facts = view.answer_of("gather")
    text = proposal(facts["customer"], facts["risks"], len(view.recalled))
    if not view.own_history():
        arguments = {
            "customer": facts["customer"]["name"],
            "discount_percent": facts["customer"]["wish"],
            "body": text,
        }
        return Action(tool="crm_save_proposal", arguments=arguments, spend=THOUGHT)
    return Finish(answer=text, spend=THOUGHT)


def proposal(customer: dict[str, Any], risks: list[dict[str, Any]], remembered: int) -> str:
    """Return the proposal's text."""
    price = customer["list_price"] * (100 - customer["wish"]) // 100
    lines = [f"Proposal to {customer['name']}: {customer['need']} for EUR {price:,} a year."]
    lines += [f"Instead of '{risk['clause']}' we propose: {risk['counter']}." for risk in risks]
    if remembered:
        lines.append("It follows what we agreed in earlier proposals.")
    return "\n".join(lines)


@priced(tokens=THOUGHT.tokens, cost_microusd=THOUGHT.cost_microusd)
def finalise(view: View) -> Action | Finish:
    """Send the final version."""
    customer = view.answer_of("gather")["customer"]
    if not view.own_history():
        arguments = {"to": customer["email"], "subject": "Our proposal", "body": view.answer_of("draft")}
        return Action(tool="mail_send", arguments=arguments, spend=THOUGHT)
    return Finish(answer=f"The proposal for {customer['need']} was sent to {customer['email']}", spend=THOUGHT)


@priced(tokens=5_000, cost_microusd=30_000)
def spendthrift(view: View) -> Action:
    """Think ever more expensively, and never finish."""
    customer = f"{view.inputs()['customer']} {view.step}"
    return Action(tool="crm_risks", arguments={"customer": customer}, spend=Spend(tokens=5_000, cost_microusd=30_000))


@priced(tokens=THOUGHT.tokens, cost_microusd=THOUGHT.cost_microusd)
def looper(view: View) -> Action:
    """Ask the same question again and again."""
    return Action(tool="crm_customer", arguments={"customer": view.inputs()["customer"]}, spend=THOUGHT)


def spinner(view: View) -> Action:
    """Hold the interpreter and never yield."""
    while True:
        pass


def demo_app(folder: Path, mail_port: int) -> App:
    """Return the app; the CRM's files lie in `folder`, mail goes to the server on `mail_port`."""
    staff = {"sam": Principal(roles=["sales"]), "lea": Principal(roles=["lead"])}
    # Of a rejection these agents are not told: they have no other way than the one that was rejected.
    small = {"max_cost_microusd": 100_000, "max_steps": 30, "max_rejections": 0}
    tenants = ("acme", "globex", "initech", "umbrella", "hooli")
    return App(
        agents={
            "gather": gather,
            "draft": draft,
            "finalise": finalise,
            "spendthrift": spendthrift,
            "looper": looper,
            "spinner": spinner,
        },
        routes={
            "default": Pipeline("gather", "draft", "finalise"),
            "spendthrift": SingleAgent("spendthrift"),
            "looper": SingleAgent("looper"),
            "spinner": SingleAgent("spinner"),
        },
        tools=[*crm_tools(folder / "crm"), mail_tool(mail_port)],
        policy=Path(__file__).with_name("policy.yaml"),
        directory=Directory(tenants={name: Tenant(principals=staff, limits=small) for name in tenants}),
        memory=True,
        version="demo-1",
    )


def demo_jobs() -> list[dict[str, Any]]:
    """Return the batch: the same request each time, and another way to end."""

    def job(job_id: str, tenant: str, customer: str = "Northwind", route: str = "default") -> dict[str, Any]:
        return {
            "job_id": job_id,
            "request": REQUEST,
            "tenant": tenant,
            "principal": "sam",
            "route": route,
            "inputs": {"customer": customer},
        }

    return [
        job("sent", "acme"),
        job("rejected", "globex"),
        job("denied", "initech", customer="Contoso"),
        job("too-expensive", "umbrella", route="spendthrift"),
        job("looping", "umbrella", route="looper"),
        job("spinning", "hooli", route="spinner"),
        job("neighbour", "hooli"),
    ]
