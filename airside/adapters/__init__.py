"""Other people's agents, governed: those of Pydantic AI, LangGraph and the OpenAI Agents SDK.

A framework is imported where an agent of its kind is built, and nowhere else.
"""

from airside.adapters.foreign import ForeignAgent, Parts
from airside.adapters.langgraph import LangGraphAgent
from airside.adapters.openai_agents import OpenAIAgent
from airside.adapters.pydantic_ai import PydanticAIAgent

__all__ = ["ForeignAgent", "LangGraphAgent", "OpenAIAgent", "Parts", "PydanticAIAgent"]
