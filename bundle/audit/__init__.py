# SPDX-License-Identifier: Apache-2.0
"""What in a dataset or in a protocol flatters a score."""
