# SPDX-License-Identifier: Apache-2.0
"""Breast ultrasound: lesion segmentation and classification as a MONAI bundle. Research software, not a device."""

__version__ = "0.1.0"
