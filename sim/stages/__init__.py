# SPDX-License-Identifier: Apache-2.0
"""The stages of `python -m sim`: a module each, whose `run` does the work."""
