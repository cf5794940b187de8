# SPDX-License-Identifier: Apache-2.0
"""What layers cost, and which widths they get."""
