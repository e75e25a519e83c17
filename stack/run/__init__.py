"""A run: its events and instructions, the machine that folds the ones and gives the others, and its telling."""
