# SPDX-License-Identifier: Apache-2.0
"""The tasks of the MONAI Label app; `lib` is the name that MONAI Label gives this folder."""
