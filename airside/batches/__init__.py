"""Batches as durable objects: how jobs are read from many kinds of input, and how results are written in parts.

`sources` reads jobs, `parts` writes results and rejects, `assembly` makes one file of the parts.
"""
