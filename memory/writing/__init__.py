"""Keeping: which candidates become records, and what they do to those there are."""
