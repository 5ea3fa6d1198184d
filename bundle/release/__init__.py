# SPDX-License-Identifier: Apache-2.0
"""What leaves the house: exports, the zoo's package, the hub's folder."""
