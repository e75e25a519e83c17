"""Reading a journal, whether its stack runs or not."""

from airside.actors.audit import Audit, open_audit

__all__ = ["Audit", "open_audit"]
