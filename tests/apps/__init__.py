"""Apps that the tests start on Ray; workers import them by name."""
