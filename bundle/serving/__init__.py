# SPDX-License-Identifier: Apache-2.0
"""A DICOM node that answers images with findings, and reading from and writing to a DICOMweb archive."""
