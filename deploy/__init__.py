# SPDX-License-Identifier: Apache-2.0
"""From a checked build to a board: the driver package, the bundle, the virtual board."""
