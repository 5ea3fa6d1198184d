#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# An uncompressed TIFF whose Orientation is 5 to 8 comes out of Pillow torn when it is opened by its name: mapped into
# memory, its rows get the length of the turned picture (ImageFile.load hands self.size to map_buffer, not _tile_size).
# Opened as a file object, or compressed, the same picture is right. Seen with Pillow 13.0.0, Python 3.11.
#     sh findings/pillow_tiff_orientation.sh [PYTHON]      needs pillow and numpy; prints what it sees
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${1:-python3}" - "$folder" <<'PYTHON'
import sys

import numpy as np
import PIL
from PIL import Image, TiffImagePlugin

upright = np.arange(120 * 160, dtype=np.uint32).reshape(120, 160) % 251
upright = upright.astype(np.uint8)
print("Pillow", PIL.__version__)
for orientation, turns in ((1, 0), (3, 2), (6, 1), (8, 3)):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright, turns)))
    for compression in ("raw", "tiff_lzw"):
        name = f"{sys.argv[1]}/{orientation}.tif"
        stored.save(name, tiffinfo=tags, compression=compression)
        by_name = np.asarray(Image.open(name))
        with open(name, "rb") as file:
            by_file = np.asarray(Image.open(file))
        said = ["right" if np.array_equal(found, upright) else f"wrong, {found.shape}" for found in (by_name, by_file)]
        print(f"orientation {orientation}, {compression}: by name {said[0]}; as a file {said[1]}")
PYTHON
