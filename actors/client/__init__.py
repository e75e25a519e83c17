"""A stack as its users hold it: submitting, waiting, results, and finding the stack that runs."""
