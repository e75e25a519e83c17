"""The receiver's side of the approval webhook."""

from airside.stack.webhooks import verify_webhook

__all__ = ["verify_webhook"]
