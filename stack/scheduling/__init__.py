"""Who runs when: admission, load, deadlines, clocks, and who is kept apart."""
