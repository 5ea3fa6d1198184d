#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# An uncompressed TIFF whose Orientation is 5 to 8 comes out of Pillow torn when it is opened by its name: mapped into
# memory, its rows get the length of the turned picture. Opened as a file object, or compressed, the same picture is
# right. So a microscope's or scanner's export on its side gives a wrong image and a wrong mask, without a warning.
# Seen with Pillow 13.0.0 and numpy 2.4.6, Python 3.11:
#     orientation 1: by name right, as a file right        orientation 6: by name torn, as a file right
# Ends with 0 while that is so, with 1 where it has changed. Needs python3 with venv, and PyPI.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import numpy as np
import PIL
from PIL import Image, TiffImagePlugin

upright = (np.arange(120 * 160, dtype=np.uint32).reshape(120, 160) % 251).astype(np.uint8)
print("Pillow", PIL.__version__, "numpy", np.__version__)
changed = False
for orientation, turns in ((1, 0), (3, 2), (6, 1), (8, 3)):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright, turns)))
    for compression in ("raw", "tiff_lzw"):
        name = f"{sys.argv[1]}/{orientation}.tif"
        stored.save(name, tiffinfo=tags, compression=compression)
        by_name = np.array_equal(np.asarray(Image.open(name)), upright)
        with open(name, "rb") as file:
            by_file = np.array_equal(np.asarray(Image.open(file)), upright)
        torn = orientation >= 5 and compression == "raw"
        changed |= by_name is torn or not by_file
        words = ["right" if good else "torn" for good in (by_name, by_file)]
        print(f"orientation {orientation}, {compression}: by name {words[0]}, as a file {words[1]}")
print("changed" if changed else "as seen")
sys.exit(int(changed))
PYTHON
