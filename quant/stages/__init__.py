# SPDX-License-Identifier: Apache-2.0
"""The stages of `python -m quant`: a module each, whose `run` does the work.

An interrupted one continues after its last whole epoch. Records hold accuracies in percent and
seconds.
"""
