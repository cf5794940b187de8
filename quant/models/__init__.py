# SPDX-License-Identifier: Apache-2.0
"""Library of plain fp32 CNNs that compression starts from."""
