"""Programs that show the project at work; each one is complete in its own folder."""
