# SPDX-License-Identifier: Apache-2.0
"""Numbers only: metrics, intervals, calibration, comparison. No file is written here, nothing is drawn."""
