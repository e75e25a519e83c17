"""Models: what they are told, what they cost, how often and how they are asked, and what of their answers counts."""
