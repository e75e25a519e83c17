"""Where tools' code runs: threads, loops and processes, the jobs they are given, and what comes of those."""
