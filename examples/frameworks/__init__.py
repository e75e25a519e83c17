"""The same clerk as an agent of Pydantic AI, of LangGraph and of the OpenAI Agents SDK, under one policy."""
