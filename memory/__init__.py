"""Memory: what runs may recall and what is worth keeping.

`service` joins everything, `tenant` is one tenant's.  Writing: `writing`, with what `privacy` says of a text, and
`storage`.  Reading: `embedding`, and `search`, whose calibrations `evaluation` fits.  `embedders` has the contract, the
default and others; `rules` and `records` are the values; `local` is memory in one process.
"""
