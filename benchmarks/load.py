"""Load of many concurrent tenants: as `airside bench`, with the same options.

python -m benchmarks.load --tenants 200 --slo 'p99<2s'
"""

from __future__ import annotations

import sys

from airside.cli import main

if __name__ == "__main__":
    main(["bench", *sys.argv[1:]])
