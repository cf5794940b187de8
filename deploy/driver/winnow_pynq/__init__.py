# SPDX-License-Identifier: Apache-2.0
"""Run a network on the Winnow engine of a board: numpy in, numpy out.

Needs Python 3.10 and numpy 1.21 or newer; pynq only where `winnow_pynq.pynq_board` is imported.

    from winnow_pynq.pynq_board import open_overlay
    with open_overlay("winnow.bit") as engine, engine.load("digits") as network:
        labels, scores = network.classify(images)
"""

from . import errors
from .backend import Backend
from .engine import Engine
from .measure import profile, selftest, throughput
from .network import Network

__all__ = ["Backend", "Engine", "Network", "errors", "profile", "selftest", "throughput"]
__version__ = "0.1.0"
