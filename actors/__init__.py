"""The layers as Ray actors: thin shells round the pure parts of `stack`, `tools` and `memory`.

Reading order: `rpc`, then one file per actor (`journal.journal`, `policy`, `approvals.approvals`, `executor`, `memory`,
`runtime`, `driver.driver`, `ingress`, `intake`) and `wardens`, and `launch` and `client`, which start a stack and talk
to it.
"""

import logging
import warnings

# In a notebook without ipywidgets Ray's import says what it would draw with it, which is nobody's concern here.
logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message="IProgress not found")
