"""Where the values of a call come from, and what a request orders, names and excludes."""
