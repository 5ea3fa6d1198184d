# SPDX-License-Identifier: Apache-2.0
"""Data: a dataset's folder -> checked cases -> datalist files that training and evaluation read."""
