"""Play one request by each framework's clerk: `python -m examples.frameworks`.  The last line is one JSON object.

Without `--url` the model is a server on loopback that says what it is told to.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import threading

import airside
from benchmarks.model_servers import Body, Saying, call, serving
from examples.frameworks.app import CLERKS, create_app

REQUEST = "Order L-1007 never arrived, and I paid 4900 cents. I want my money back."
WAIT_S = 300.0

SAYINGS = (
    call("find_order", {"order_id": "L-1007"}),
    call("refund", {"order_id": "L-1007", "cents": 4900}),
    Saying(text="You get your 4900 cents back."),
)


def say(body: Body) -> Saying:
    """Return what comes next in a conversation."""
    return SAYINGS[sum(message["role"] == "assistant" for message in body["messages"])]


def approve_all(stack: airside.Stack, over: threading.Event) -> None:
    """Approve as the lead whatever waits, and show what was asked."""
    while not over.wait(0.2):
        for approval in stack.approvals():
            roles = ", ".join(approval.roles)
            print(f"waits for {roles}: {approval.tool} {json.dumps(approval.arguments)}", flush=True)
            stack.approve(approval.approval_id, principal="lea", note="the carrier lost it")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="of a server that speaks OpenAI's protocol, up to /v1")
    parser.add_argument("--model", default="default", help="what the model is called there")
    given = parser.parse_args()
    over = threading.Event()
    with contextlib.ExitStack() as exits:
        folder = exits.enter_context(tempfile.TemporaryDirectory())
        url = given.url or exits.enter_context(serving(say)).url + "/v1"
        stack = exits.enter_context(airside.start(create_app(url, given.model), state_dir=folder))
        approving = threading.Thread(target=approve_all, args=(stack, over))
        approving.start()
        handles = {name: stack.submit(REQUEST, tenant="lamps", principal="ana", route=name) for name in CLERKS}
        results = {name: handle.result(timeout=WAIT_S) for name, handle in handles.items()}
        over.set()
        approving.join()
        for name, handle in handles.items():
            print(f"\n{name}\n{handle.story()}")
        print(json.dumps({name: {"ok": result.ok, "answer": result.answer} for name, result in results.items()}))


if __name__ == "__main__":
    main()
