# SPDX-License-Identifier: Apache-2.0
"""The stages of this folder, one module each."""
