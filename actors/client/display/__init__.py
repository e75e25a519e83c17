"""How what a stack answers is drawn in a notebook: values become a `Drawing`, and that becomes text and static HTML."""
