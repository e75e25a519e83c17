"""OpenTelemetry's names for generative AI, by its semantic conventions 1.44.0: the last release that has them.

They have moved to a repository of their own since and are still in development, so these are kept in one place, and a
test holds them against the package `opentelemetry-semantic-conventions` that is installed.
"""

from __future__ import annotations

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
CONVERSATION = "gen_ai.conversation.id"
AGENT = "gen_ai.agent.name"
AGENT_VERSION = "gen_ai.agent.version"
TOOL = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
TOOL_CALL = "gen_ai.tool.call.id"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - of a model's tokens
ERROR_TYPE = "error.type"

CHAT = "chat"
INVOKE_AGENT = "invoke_agent"
EXECUTE_TOOL = "execute_tool"
INPUT, OUTPUT = "input", "output"

OTHER = "_OTHER"
"""The type of an error that has none."""

TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105
OPERATION_DURATION = "gen_ai.client.operation.duration"

TOKEN_BUCKETS = tuple(4**power for power in range(14))
DURATION_BUCKETS = tuple(0.01 * 2**power for power in range(14))
"""The boundaries that the conventions name for the two: 1 to 67,108,864 tokens, 0.01 to 81.92 seconds."""

PROVIDERS = {"openai": "openai", "anthropic": "anthropic", "google": "gcp.gemini"}
"""What the conventions call the providers whose protocols endpoints speak."""
