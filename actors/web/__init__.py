"""What everything has in common that is served over HTTP: where it listens, for whom, and for how long."""
