# SPDX-License-Identifier: Apache-2.0
"""Holds `winnow_pynq`, which is copied to a board as it is and imports nothing of this project."""
