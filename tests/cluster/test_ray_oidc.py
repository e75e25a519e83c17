"""Tokens of an OIDC issuer on a real stack: who has one submits and votes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import airside
from airside.directory import Directory, OidcIssuer, Principal, Tenant
from airside.stack.errors import Refused
from tests.apps.notes import create_app
from tests.oidc_issuer import DISCOVERY, KEYS, an_issuer
from tests.on_ray import BOUND_S, call, waiting

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_who_has_a_token_of_a_pinned_issuer_submits_and_votes(local_ray: None, tmp_path: Path) -> None:
    """The issuer is asked once; when it is gone, what it signed is as good as before."""
    with an_issuer() as issuer:
        entry = OidcIssuer(issuer=issuer.url, audience="airside", algorithms=["RS256"], tenant="acme")
        people = {
            "ana": Principal(roles=["clerk"], scopes=["notes", "money"], issuers=["corp"]),
            "lea": Principal(roles=["lead"], issuers=["corp"]),
            "bot": Principal(roles=["lead"]),
        }
        directory = Directory(oidc={"corp": entry}, tenants={"acme": Tenant(principals=people)})
        app = dataclasses.replace(create_app(tmp_path), directory=directory)
        signer = issuer.signer()
        with airside.start(app, stack="oidc", state_dir=tmp_path, executors=1, mode="pooled") as stack:
            inputs = {"actions": [call("pay", to="ben", amount=3)]}
            run = stack.submit("pay", token=signer.token(), inputs=inputs)
            approval = waiting(stack, run.run_id)
            for wrong in (signer.token(sub="bot"), issuer.signer(number=1).token(sub="lea"), signer.token(aud="x")):
                with pytest.raises(Refused):
                    stack.approve(approval.approval_id, token=wrong)
            assert stack.approve(approval.approval_id, token=signer.token(sub="lea")) == "approved"
            assert run.result(timeout=BOUND_S).ok
            assert issuer.asked == [DISCOVERY, KEYS]
            issuer.answers.update({DISCOVERY: 503, KEYS: 503})
            assert stack.submit("look", token=signer.token()).result(timeout=BOUND_S).ok
            for wrong, reason in ((signer.token(sub="bot"), "principal_unknown"), ("x.y.z", "auth_malformed")):
                with pytest.raises(Refused) as caught:
                    stack.submit("look", token=wrong).result(timeout=BOUND_S)
                assert caught.value.reason == reason
