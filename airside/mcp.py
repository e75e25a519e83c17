"""Tool servers that speak the Model Context Protocol."""

from airside.tools.mcp.server import McpServer

__all__ = ["McpServer"]
