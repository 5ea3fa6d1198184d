#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A VOI table whose entries have 8 bits, over pixels of more than 8: pydicom's apply_voi takes the pixels modulo 256
# before it looks them up, since it gives the indices the type of the entries. So a picture of 12 bits is shown in
# stripes, without a warning. Entries of 8 bits that lie two in a word, as they do in a file, are refused.
# Seen with pydicom 3.0.2 and numpy 2.4.6, Python 3.11:
#     value 100: shown 6, in the table 6        value 1000: shown 14, in the table 62        ...
# Ends with 0 while that is so, with 1 where it has changed. Needs python3 with venv, and PyPI.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_voi

print("pydicom", pydicom.__version__, "numpy", np.__version__)
entries = (np.arange(4096) // 16).astype(np.uint16)
table = Dataset()
table.add_new("LUTDescriptor", "US", [4096, 0, 8])
table.add_new("LUTData", "US", [int(entry) for entry in entries])
image = Dataset()
image.VOILUTSequence = [table]
values = np.array([100, 255, 256, 1000, 4095], np.uint16)
shown = apply_voi(values, image)
for value, grey in zip(values, shown):
    print(f"value {value}: shown {grey}, in the table {entries[value]}")
wrong = shown != entries[values]
changed = wrong.tolist() != [False, False, True, True, True]
print("changed" if changed else "as seen")
sys.exit(int(changed))
PYTHON
