"""What is left to resolve: calls in doubt, taking back what a run did, and what else is on record of it."""
