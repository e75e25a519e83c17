"""The same governed step on other durable runtimes, beside Airside."""
