# SPDX-License-Identifier: Apache-2.0
"""Removal of channels from a trained network: docs/compression.md."""
