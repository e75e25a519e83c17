"""Finding: one tenant's index in RAM, the words and vectors it scores, and what a score means."""
