# SPDX-License-Identifier: Apache-2.0
"""Comparison of recipes with dense networks of equal training and of equal cycles."""
