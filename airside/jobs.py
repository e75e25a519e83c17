"""Jobs files: one JSON object a line, read as `airside run` reads them."""

from airside.actors.jobs import BadLine, Job, read_jobs

__all__ = ["BadLine", "Job", "read_jobs"]
