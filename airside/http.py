"""Serving HTTP: how a stack serves its API and console by itself, `App(http=HttpServer(...))`."""

from airside.actors.http_settings import HttpServer

__all__ = ["HttpServer"]
