"""Tools that come with Airside: each is made by a factory, which an operator tells what may be reached, and no more."""
