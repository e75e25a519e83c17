"""Models: where they are, what they cost, and what an agent of your own is told when it asks one."""

from airside.stack.contracts.models import ModelReply, OfferedTool, Prompt, RequestedCall, Turn
from airside.stack.models.access import ModelUnanswered
from airside.stack.models.agent import ModelAgent
from airside.stack.models.endpoints import ModelEndpoint, TokenPrice
from airside.stack.models.extractor import FactExtractor

__all__ = [
    "FactExtractor",
    "ModelAgent",
    "ModelEndpoint",
    "ModelReply",
    "ModelUnanswered",
    "OfferedTool",
    "Prompt",
    "RequestedCall",
    "TokenPrice",
    "Turn",
]
