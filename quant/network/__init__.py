# SPDX-License-Identifier: Apache-2.0
"""A network as a whole: where its layers sit, and its conversions."""
