# SPDX-License-Identifier: Apache-2.0
"""How a source shows its own pixels, for objects that show them too: its look-up tables and its profile of colours."""

from __future__ import annotations

import io
import os
import pkgutil

import numpy as np
from PIL import ImageCms
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from bundle.errors import InputError
from bundle.readers.lookup_table import read_lookup_table

_SRGB = "_icc_profiles/sRGB_v4_ICC_preference.icc"
"""highdicom's profile of colours that are sRGB, as those are of which nothing else is said."""

_TYPES = ("OD", "HU", "US", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT")
"""Defined terms of the Modality LUT Type; US says that it is not specified."""

_LARGEST_PROFILE = 1 << 22
_CLASS, _DIGEST = slice(12, 16), slice(84, 100)
"""Bytes of a profile's header (ICC.1:2022, 7.2): its device class, and an MD5 of it, which may be zero."""


def copy_lookup_table(header: Dataset, keyword: str, name: str | os.PathLike[str]) -> Dataset:
    """Return the first look-up table of a sequence of a header, number by number; texts of it are left there.

    A presentation state allows entries of 8 and 16 bits alone. What a VOI table gives is a share of its range, so its
    entries are stretched to 16 bits; what a modality table gives are values, which stay.

    Args:
        header: of the source.
        keyword: ``ModalityLUTSequence`` or ``VOILUTSequence``.
        name: of the source, for messages.

    Raises:
        InputError: its descriptor and its data do not fit each other.
    """
    try:
        source = read_lookup_table(header, keyword)
    except ValueError as error:
        raise InputError(name, str(error), "write other outputs") from None
    assert source is not None
    length, bits, largest = len(source.entries), source.bits, 2**source.bits - 1
    table = Dataset()
    if keyword == "ModalityLUTSequence":
        kind = str(header[keyword].value[0].get("ModalityLUTType", ""))
        table.ModalityLUTType = kind if kind in _TYPES else "US"
        data = source.entries.astype("u1" if bits == 8 else "<u2").tobytes()
    else:
        data = np.rint(source.entries.clip(0, largest) * (65535 / largest)).astype("<u2").tobytes()
        bits = 16
    # By the sign of the first value, since the object has no pixels that would tell it.
    descriptor_type, half = ("SS", 1 << 15) if source.first < 0 else ("US", 1 << 16)
    as_stored = length - (1 << 16) if length >= half else length
    table.add(DataElement("LUTDescriptor", descriptor_type, [as_stored, source.first, 8 if bits == 8 else 16]))
    table.add(DataElement("LUTData", "OW", data + b"\0" * (len(data) % 2)))
    return table


def copy_profile(header: Dataset) -> bytes:
    """Return the ICC profile of a picture in colours, as DICOM objects may hold it; sRGB's where it has none of RGB.

    Scanners embed the profile of a display, sRGB's above all, where the standard wants that of an input device (PS3.3
    C.11.15). One of a display has all that one of an input device needs, so it is taken over under that class.
    """
    data = header.get("ICCProfile")
    if isinstance(data, bytes) and 128 < len(data) <= _LARGEST_PROFILE:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(data)).profile
        except OSError:  # it is not one
            return _srgb()
        kind = profile.device_class.strip()
        fits = profile.xcolor_space.strip() == "RGB" and profile.connection_space.strip() in ("Lab", "XYZ")
        if fits and kind in ("scnr", "spac"):
            return data
        if fits and kind == "mntr":
            relabelled = bytearray(data)
            relabelled[_CLASS], relabelled[_DIGEST] = b"scnr", bytes(16)
            return bytes(relabelled)
    return _srgb()


def _srgb() -> bytes:
    profile = pkgutil.get_data("highdicom", _SRGB)
    assert profile is not None
    return profile
