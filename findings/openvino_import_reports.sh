#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `import openvino`, without a conversion and without a question, reports itself: it makes an id of its user in
# ~/intel/openvino_ga_cid, and sends an event with it to www.google-analytics.com from a process that it forks. A program
# that only computes with OpenVINO, in a hospital say, calls out at every start. It keeps quiet after `opt_in_out
# --opt_out` for one user, or for a program that lets `import openvino_telemetry` fail (None in sys.modules), for which
# OpenVINO has a stub.
# Seen with openvino 2026.4.1 and openvino-telemetry 2025.2.0, Python 3.11, Linux (Google's name is not resolved here,
# only noted):
#     import openvino: asks for ['www.google-analytics.com'], leaves ['openvino_ga_cid', 'stats'] in ~/intel
#     the same without openvino_telemetry: asks for [], leaves [] in ~/intel
# Ends with 0 while that is so, with 1 where it has changed. Needs python3 with venv, and PyPI.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1 openvino-telemetry==2025.2.0
cat > "$folder/start.py" <<'PYTHON'
import socket
import sys
import time
from importlib.metadata import version
from pathlib import Path

ASKED = Path(sys.argv[1])


def note(host, *arguments, **options):  # the forked process inherits it
    with ASKED.open("a") as file:
        print(host, file=file)
    raise OSError("no name is resolved here")


socket.getaddrinfo = note
if sys.argv[2] == "quiet":
    sys.modules["openvino_telemetry"] = None
import openvino

if sys.argv[2] == "plain":
    print("openvino", openvino.__version__, "openvino-telemetry", version("openvino-telemetry"))
assert "CPU" in openvino.Core().available_devices
time.sleep(2)
PYTHON
for kind in plain quiet; do  # without the variables by which it would know CI
    mkdir "$folder/$kind"
    env -i PATH="$PATH" HOME="$folder/$kind" "$folder/venv/bin/python" "$folder/start.py" "$folder/$kind.txt" "$kind"
done
python3 - "$folder" <<'PYTHON'
import sys
from pathlib import Path

folder = Path(sys.argv[1])
same = True
for kind, about, hosts, files in (
    ("plain", "import openvino", ["www.google-analytics.com"], ["openvino_ga_cid", "stats"]),
    ("quiet", "the same without openvino_telemetry", [], []),
):
    asked, home = folder / f"{kind}.txt", folder / kind / "intel"
    seen = sorted(set(asked.read_text().split())) if asked.exists() else []
    left = sorted(path.name for path in home.iterdir()) if home.is_dir() else []
    print(f"{about}: asks for {seen}, leaves {left} in ~/intel")
    same = same and (seen, left) == (hosts, files)
print("as seen" if same else "changed")
sys.exit(int(not same))
PYTHON
