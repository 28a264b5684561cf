"""Plugin of pytest that makes Ray, vLLM and torch impossible to import.

`make test-unit` runs with it: a unit test that needs one of them belongs in `tests/contract`.
"""

import sys

for name in ("ray", "torch", "transformers", "vllm"):
    sys.modules[name] = None  # type: ignore[assignment] # to import it is an error
