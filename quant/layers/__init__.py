# SPDX-License-Identifier: Apache-2.0
"""Layers that multiply in taps, and their Brevitas copies."""
