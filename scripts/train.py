# SPDX-License-Identifier: Apache-2.0
"""Train in one or several processes, and start again from the last checkpoint when the training dies.

    python scripts/train.py configs/train.json --dataset_dir /path/to/dataset
    python scripts/train.py --processes 2 configs/train_classifier.json --dataset_dir /path/to/dataset

The options of this script stand before the configs, overrides (`--id value`) after them. Relative paths are those of
the folder that it is called in.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import find_config, one_line_errors
from bundle.config.typed import resolve_paths
from bundle.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Returns 0, 2 on a user's mistake, 130 or 143 when stopped, else the code of the last try."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1, help="on this node, one per GPU; default: 1")
    parser.add_argument("--nodes", type=int, default=1, help="start this command on each of them; default: 1")
    parser.add_argument("--rendezvous", metavar="HOST:PORT", help="of one of the nodes, where they meet")
    parser.add_argument("--max_restarts", type=int, default=5, help="0 for none; default: 5")
    parser.add_argument("configs", nargs="+", type=Path, metavar="CONFIG", help="such as configs/train.json")
    parser.add_argument("overrides", nargs=argparse.REMAINDER, metavar="--id value", help="such as --max_epochs 3")
    options = parser.parse_args(argv)
    if options.nodes > 1 and not options.rendezvous:
        raise UserError("--nodes: several nodes need --rendezvous HOST:PORT of one of them")

    from bundle.training.launch import run_processes, run_with_restarts

    files = [str(find_config(path, ROOT).resolve()) for path in options.configs]
    options.overrides = resolve_paths(options.overrides, Path.cwd())
    distributed = options.processes * options.nodes > 1
    if distributed:
        files.append(str(ROOT / "configs" / "multi_gpu_train.json"))
    words = ["-W", "ignore", "-m", "monai.bundle", "run", "training"]
    words += ["--config_file", files[0] if len(files) == 1 else str(files), *options.overrides]
    os.chdir(ROOT)
    if distributed and options.max_restarts == 0:
        return run_processes(words, options.processes, options.nodes, options.rendezvous)
    if distributed:  # each try in a process of its own, with nothing left of the one before
        words = [str(Path(__file__).resolve()), "--max_restarts", "0"]
        words += ["--processes", str(options.processes), "--nodes", str(options.nodes)]
        words += ["--rendezvous", options.rendezvous] if options.rendezvous else []
        words += [*map(str, files[:-1]), *options.overrides]
    return run_with_restarts([sys.executable, *words], options.max_restarts)


if __name__ == "__main__":
    sys.exit(main())
