# SPDX-License-Identifier: Apache-2.0
"""One call of cocotb's runner in a process of its own.

    python -m sim.cocotb_child build|test OPTIONS

OPTIONS is a JSON table of the arguments of `Runner.build` or `Runner.test`. The runner starts its
tools in the session of its process; as it is one of its own, it ends with all of them.
"""

from __future__ import annotations

import json
import sys

from cocotb_tools.runner import get_runner


def main() -> None:
    """Run one step; the exit code is not 0 when a tool fails."""
    runner, options = get_runner("verilator"), json.loads(sys.argv[2])
    try:
        if sys.argv[1] == "build":
            runner.build(**options)
        else:
            runner.test(**options)
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
