"""How a run, a step or a call ends: what became of it (`RunStatus`) and why (`ReasonCode`).

Two enums, because they answer two questions.  Each member's sentence is what a person is shown;
docs/reference/reason-codes.md says where each is raised, and a test reaches every one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class RunStatus(StrEnum):
    """What became of a run."""

    COMPLETED = "completed"  # It finished with an answer.
    REFUSED = "refused"  # Somebody or something said no: identity, admission, policy, an approver.
    STOPPED = "stopped"  # It reached one of its limits.
    FAILED = "failed"  # An agent, a tool or a layer could not do its work.
    CANCELLED = "cancelled"  # Its owner withdrew it.
    KILLED = "killed"  # An operator or the driver ended it.
    IN_DOUBT = "in_doubt"  # An effect may or may not have happened, and nobody could say.


class _Code(StrEnum):
    """A code with the sentence that a person is shown."""

    sentence: str

    def __new__(cls, value: str, sentence: str) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member


class ReasonCode(_Code):
    """Why a run, a step or a call ended or was refused."""

    COMPLETED = "completed", "The run finished with an answer."
    ALLOWED = "allowed", "A policy rule allows the call."

    AUTH_FAILED = "auth_failed", "The token or key is not one this stack accepts."
    AUTH_MALFORMED = "auth_malformed", "The token is too large, is not a token, or repeats a claim."
    AUTH_UNTRUSTED = "auth_untrusted", "The token's algorithm, key, issuer or audience is not the pinned one."
    AUTH_BAD_SIGNATURE = "auth_bad_signature", "The token's signature does not verify."
    AUTH_EXPIRED = "auth_expired", "The token has expired."
    AUTH_NOT_YET_VALID = "auth_not_yet_valid", "The token is not valid yet."
    AUTH_CLAIM_MISSING = "auth_claim_missing", "The token lacks a required claim, or the claim has a wrong type."
    AUTH_KEYS_UNAVAILABLE = (
        "auth_keys_unavailable",
        "The keys of the token's issuer could not be had, so that nothing it signed is believed.",
    )
    AUTH_SCOPE_MISSING = "auth_scope_missing", "The token's scope does not allow this."
    AUTH_UNKNOWN_KEY = "auth_unknown_key", "No principal holds this API key."
    PRINCIPAL_UNKNOWN = "principal_unknown", "The tenant does not list this principal."
    TENANT_UNKNOWN = "tenant_unknown", "The directory does not list this tenant."
    ADMISSION_REJECTED = (
        "admission_rejected",
        "The tenant's queue is full or its rate used up; try again after retry_after.",
    )
    REQUEST_INVALID = "request_invalid", "The request breaks its contract (size, type, or an unknown field)."
    SWITCHED_OFF = (
        "switched_off",
        "An operator has switched off the tenant, principal, tool, run, version or everything.",
    )
    UNKNOWN_ROUTE_MODE = "unknown_route_mode", "The route, agent or branch asked for does not exist."

    POLICY_DENIED = "policy_denied", "A policy rule denies the call, or none allows it."
    POLICY_ERROR = "policy_error", "Policy could not be evaluated, which is a no."
    RESOURCE_UNKNOWN = "resource_unknown", "Policy asks about a resource that this tenant does not have."
    RESOURCE_UNAVAILABLE = "resource_unavailable", "What policy asks about a resource could not be found out in time."
    APPROVAL_REJECTED = "approval_rejected", "A person with the right role rejected the call."
    APPROVAL_EXPIRED = "approval_expired", "Nobody decided in time, which is a no."

    TOOL_UNKNOWN = "tool_unknown", "No tool of that name is registered, or the principal may not see it."
    TOOL_INVALID_ARGUMENTS = "tool_invalid_arguments", "The arguments break the tool's schema or its bounds."
    TOOL_TIMEOUT = "tool_timeout", "The call did not answer before its deadline."
    TOOL_FAILED = "tool_failed", "The tool answered with an error."
    TOOL_OUTPUT_INVALID = "tool_output_invalid", "The tool's output is not JSON or is over its bound in bytes."
    TOOL_IN_DOUBT = "tool_in_doubt", "The call may or may not have happened, and the tool cannot say."
    TOOL_UNAVAILABLE = "tool_unavailable", "No executor could be reached, and nothing was started."
    TOOL_CHANGED = "tool_changed", "The tool is no longer what policy was checked with, and it was not called."
    SECRET_UNAVAILABLE = "secret_unavailable", "A secret that the tool needs is not there, and it was not called."
    TOOL_ASKS = "tool_asks", "The tool asks a person for something before it completes the call."
    TOOL_QUARANTINED = "tool_quarantined", "The tool's server is not what a person approved, and it was not called."
    SANDBOX_REQUIRED = "sandbox_required", "The rule that allows the call takes a sandbox, and its tool has none."
    SANDBOX_UNAVAILABLE = "sandbox_unavailable", "No sandbox as the call needs can be made, and nothing was started."
    CIRCUIT_OPEN = "circuit_open", "The tool did not answer the tenant's calls before, and was not called."
    GRANT_INVALID = "grant_invalid", "The grant is forged, altered, expired, used, or for another executor."
    GRANT_STALE = "grant_stale", "The grant belongs to an older activation of the run."

    PRICE_UNKNOWN = "price_unknown", "What it would cost is not known, so it is not bought."
    PRICE_EXCEEDED = "price_exceeded", "A decision cost more than its agent had named."
    MAX_STEPS = "max_steps", "The run used all its steps."
    MAX_SECONDS = "max_seconds", "The run used all its active seconds."
    MAX_TOKENS = "max_tokens", "The run used all its model tokens."
    MAX_TOOL_CALLS = "max_tool_calls", "The run used all its tool calls."
    MAX_COST = "max_cost", "The next step would cost more than the run may spend."
    MAX_OUTPUT = "max_output", "The run's tools returned more bytes than it may hold."
    MAX_HANDOFFS = "max_handoffs", "Control was handed over more often than the run may."
    MAX_DEPTH = "max_depth", "Runs fan out into runs more deeply than is allowed."
    BUDGET_EXHAUSTED = "budget_exhausted", "A budget that runs share has too little left for the call or decision."
    LOOP_DETECTED = "loop_detected", "The same action with the same arguments came too often."
    DEADLINE_EXCEEDED = "deadline_exceeded", "The run took longer than the operator allows, waiting included."

    CANCELLED = "cancelled", "The run's owner withdrew it."
    KILLED_BY_OPERATOR = "killed_by_operator", "An operator killed it."
    KILLED_RUNAWAY = (
        "killed_runaway",
        "It held a process that others need, or cost several their lives: the driver ended it.",
    )

    AGENT_ERROR = "agent_error", "The agent's code raised an error."
    AGENT_TIMEOUT = "agent_timeout", "The agent did not decide before its deadline."
    AGENT_INVALID_ACTION = "agent_invalid_action", "The agent proposed something that is not a valid action."
    AGENT_NONDETERMINISTIC = (
        "agent_nondeterministic",
        "The agent's code was run again and did not do what it had done before.",
    )
    MODEL_UNAVAILABLE = "model_unavailable", "No model answered: its provider refused, failed, or could not be reached."
    MEMORY_UNAVAILABLE = "memory_unavailable", "Memory did not answer, and the run may not go on without it."
    CHILD_FAILED = "child_failed", "A branch of the run did not complete."
    INTERNAL_ERROR = "internal_error", "A layer failed in a way that has no name yet: report it."


def reason_of(value: str) -> ReasonCode:
    """Return the member with this value; raise `ValueError` if there is none."""
    return ReasonCode._value2member_map_[value]  # type: ignore[return-value]


def status_of(reason: ReasonCode) -> RunStatus:
    """Return what becomes of a run that ends for `reason`; the one place where the two enums meet."""
    return _STATUS.get(reason, RunStatus.FAILED)


_R = ReasonCode
_STATUS: dict[ReasonCode, RunStatus] = {
    _R.COMPLETED: RunStatus.COMPLETED,
    _R.CANCELLED: RunStatus.CANCELLED,
    _R.KILLED_BY_OPERATOR: RunStatus.KILLED,
    _R.KILLED_RUNAWAY: RunStatus.KILLED,
    _R.TOOL_IN_DOUBT: RunStatus.IN_DOUBT,
    **dict.fromkeys(
        [r for r in ReasonCode if r.startswith("auth_")]
        + [_R.PRINCIPAL_UNKNOWN, _R.TENANT_UNKNOWN, _R.ADMISSION_REJECTED, _R.REQUEST_INVALID]
        + [
            _R.SWITCHED_OFF,
            _R.PRICE_UNKNOWN,
            _R.UNKNOWN_ROUTE_MODE,
            _R.POLICY_DENIED,
            _R.POLICY_ERROR,
            _R.SANDBOX_REQUIRED,
            _R.RESOURCE_UNKNOWN,
            _R.RESOURCE_UNAVAILABLE,
            _R.APPROVAL_REJECTED,
            _R.APPROVAL_EXPIRED,
        ]
        + [_R.TOOL_UNKNOWN, _R.TOOL_INVALID_ARGUMENTS],
        RunStatus.REFUSED,
    ),
    **dict.fromkeys(
        [r for r in ReasonCode if r.startswith("max_")]
        + [_R.LOOP_DETECTED, _R.BUDGET_EXHAUSTED, _R.PRICE_EXCEEDED, _R.DEADLINE_EXCEEDED],
        RunStatus.STOPPED,
    ),
}


class MemoryCode(_Code):
    """What memory did with a candidate, and why."""

    STORED = "stored", "It is kept as a record of its own."
    MERGED = "merged", "A record says nearly the same and now carries both sources."
    DUPLICATE = "duplicate", "A record has this text already."
    SUPERSEDED = "superseded", "A newer record says otherwise; it is kept for audit, and never recalled."
    QUARANTINED = "quarantined", "It is kept for a person to look at, and never recalled."
    INVALID = "invalid", "A field is not what it must be."
    TOO_SHORT = "too_short", "It is too short to hold a fact."
    TOO_LONG = "too_long", "It is a document, not a memory."
    NO_CONTENT = "no_content", "It has no words, or the same few over and over."
    COURTESY = "courtesy", "It greets, thanks, apologizes or takes leave, and tells nothing else."
    OFFER = "offer", "It offers help or promises to look, and tells nothing yet."
    ACKNOWLEDGEMENT = "acknowledgement", "It says that something is understood or done, and not what."
    QUESTION = "question", "It asks, and tells nothing."
    GUESS = "guess", "Whoever says it does not know it."
    NO_ANSWER = "no_answer", "It says that somebody cannot help or does not know."
    NO_RESULT = "no_result", "It says that nothing was found, or has no value in it."
    ERROR_TEXT = "error_text", "It is a machine's error, not what happened to somebody."
    MACHINE_TEXT = "machine_text", "It is markup, a log or code."
    INSTRUCTION = "instruction", "It tells whoever reads it what to do with its rules, its role or what it may do."
    LOW_CONFIDENCE = "low_confidence", "Whoever offers it hardly believes it."
    TTL_INVALID = "ttl_invalid", "It has no end, or too late a one, and its kind has none."
    TIME_INVALID = "time_invalid", "It says it was observed in the future."
    SECRET = "secret", "It holds a password, key or token."
    PERSONAL_DATA = "personal_data", "It holds personal data, which the rules refuse."
    QUOTA_RECORDS = "quota_records", "The tenant may keep no more records."
    QUOTA_BYTES = "quota_bytes", "The tenant may keep no more bytes."
    ERASED = "erased", "While it waited, what it is about was ordered to be erased."
    SOURCE_GONE = "source_gone", "A record that its run was shown is gone: it was erased, or has expired."
    TOO_MANY_SOURCES = "too_many_sources", "Its run was shown more records than what it says can be traced to."
    UNWARRANTED = "unwarranted", "Whoever offers it has no right to the tenant's memory."
    MEMORY_UNAVAILABLE = "memory_unavailable", "Memory could not be reached, or could not write."
