# SPDX-License-Identifier: Apache-2.0
"""Models of other tools in, models for other tools out."""
