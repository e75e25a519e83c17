"""What a tool takes: its spec, JSON Schemas and the judging of values by them, and paths into arguments."""
