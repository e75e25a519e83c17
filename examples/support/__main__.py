"""Play the support app on one request: `python -m examples.support`.  The last line is one JSON object.

Without `SUPPORT_BASE_URL` in the environment the model is a cassette, whose answers were written by hand in the form in
which models give them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
from pathlib import Path

import airside
from airside.memory import Candidate
from airside.stack.ids import parse_tenant
from examples.support.app import KNOWN, REQUEST, create_app

WAIT_S = 300.0


def approve_all(stack: airside.Stack, over: threading.Event) -> None:
    """Approve as the lead whatever waits, and show what was asked."""
    while not over.wait(0.2):
        for approval in stack.approvals():
            print(
                f"waits for {', '.join(approval.roles)}: {approval.tool} {json.dumps(approval.arguments)}", flush=True
            )
            stack.approve(approval.approval_id, principal="lea", note="the carrier lost it")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state-dir", type=Path, help="kept, to be looked at; else a folder that is removed")
    given = parser.parse_args()
    over = threading.Event()
    with (
        tempfile.TemporaryDirectory() as folder,
        airside.start(create_app(), state_dir=given.state_dir or folder) as stack,
    ):
        lamps = parse_tenant("lamps")
        stack.memory.remember(Candidate(tenant=lamps, text=KNOWN, kind="fact", source="handbook", trust="high"))
        approving = threading.Thread(target=approve_all, args=(stack, over))
        approving.start()
        result = stack.submit(REQUEST, tenant="lamps", principal="ana").result(timeout=WAIT_S)
        over.set()
        approving.join()
        print(stack.handle(result.run_id).story())
        print(json.dumps({"ok": result.ok, "answer": result.answer, "tokens": result.tokens}))


if __name__ == "__main__":
    main()
