# SPDX-License-Identifier: Apache-2.0
"""Training loops and what they save."""
