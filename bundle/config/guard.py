# SPDX-License-Identifier: Apache-2.0
"""Guards around MONAI's configs: refuse misspelt ids at run time, and end scripts with one line on a user's mistake.

MONAI is imported inside the functions: `one_line_errors` serves scripts whose `--help` should not wait for torch.
"""

from __future__ import annotations

import difflib
import functools
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from bundle.config.typed import text_values, typed_overrides
from bundle.errors import UserError

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

# Ids that programs read from outside: MONAI's workflow, FL client and tracking, MONAI Label, the zoo's conventions.
WORK_IDS = frozenset({"initialize", "run", "finalize", "training", "evaluating"})
OUTSIDE_IDS = WORK_IDS | {
    *("imports", "bundle_root", "dataset_dir", "output_dir", "device", "_meta_", "_desc_", "displayable_configs"),
    *("pre_transforms", "preprocessing", "post_transforms", "postprocessing", "inferer", "detector", "network"),
}


COUNTS, SEEDS = ("max_epochs", "batch_size", "val_interval"), ("seed", "split_seed", "segmentation_split_seed")
"""Top-level ids whose value is a whole number; of counts from 1."""
FLAGS = (
    *("letterbox", "instance_norm", "presence", "pretrained", "normals", "publish", "fuse_features", "flip", "decoder"),
    *("explain", "each_frame", "amp"),
)
"""Those whose value is true or false: Fire makes text of `false`, which Python takes for true."""


_WANTED = {
    "filters": "a list such as [16,32]",
    "spatial_size": "[H,W]",
    "learning_rate": "a number above 0, such as 0.002",
}


def one_line_errors(main: Callable[..., int]) -> Callable[..., int]:
    """Decorate a script's `main(argv) -> int`: a UserError becomes one line on stderr and exit code 2."""

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        print_any_text()
        try:
            return main(argv)
        except UserError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return 2

    return wrapped


def print_any_text() -> None:
    """Let what a terminal's encoding does not have be printed as ``\\xe9``, not end the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def nearest(name: str, names: Iterable[str]) -> str:
    """Return `; nearest: a, b` with up to three of `names` that resemble `name`, or an empty string if none does.

    Ids are compared by their last part too, so that `max_epoch` finds `train#trainer#max_epochs`.
    """
    by_key: dict[str, list[str]] = {}
    for full in sorted(set(names), key=lambda text: (text.count("#"), text)):
        for key in {full, full.rsplit("#", 1)[-1]}:
            by_key.setdefault(key, []).append(full)
    matches = difflib.get_close_matches(name, by_key, n=3, cutoff=0.6)
    found = list(dict.fromkeys(full for match in matches for full in by_key[match]))[:3]
    return f"; nearest: {', '.join(found)}" if found else ""


def find_config(named: Path, root: Path) -> Path:
    """The config file that a command names: as it stands, or the bundle's own of that name, in whatever folder one is.

    Raises:
        UserError: there is none; with the nearest of the bundle's own.
    """
    found = next((path for path in (named, root / named) if path.is_file()), None)
    if found is None:
        own = [f"configs/{path.name}" for path in (root / "configs").iterdir() if path.suffix in (".json", ".yaml")]
        raise UserError(f"{named}: no such config{nearest(f'configs/{named.name}', own)}; give a file that exists")
    return found


def walk(config: Any, id_: str = "") -> Iterator[tuple[str, Any]]:
    """Yield `(id, value)` of every item of a config, parents first; ids are written as MONAI does (`a::b::0`)."""
    yield id_, config
    if isinstance(config, (dict, list)):
        for key, value in config.items() if isinstance(config, dict) else enumerate(config):
            yield from walk(value, f"{id_}::{key}" if id_ else str(key))


def unused_ids(config: dict[str, Any], extra: Sequence[str] = ()) -> list[str]:
    """Return the top-level ids of a config that no `@id`, no `%id` and no program from outside uses, in their order.

    Args:
        config: a config with absolute ids, before or after the macros are replaced.
        extra: further ids that count as used.
    """
    from monai.bundle import ConfigParser, ReferenceResolver
    from monai.bundle.properties import InferProperties, MetaProperties, TrainProperties
    from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS
    from monai.utils import BundlePropertyConfig

    properties = [*TrainProperties.values(), *InferProperties.values(), *MetaProperties.values()]
    tracking: dict[str, Any] = DEFAULT_MLFLOW_SETTINGS["configs"]  # type: ignore[assignment]
    used = {*OUTSIDE_IDS, *extra, *tracking}
    used |= {str(entry[BundlePropertyConfig.ID]).split("::")[0] for entry in properties}
    for _, value in walk(config):
        if isinstance(value, str):
            ids = list(ReferenceResolver.match_refs_pattern(value))
            if value.startswith("%"):
                path, macro_id = ConfigParser.split_path_id(value[1:])
                ids += [] if path else [macro_id]
            used |= {id_.split("::")[0] for id_ in ids}
    runs = ("%run", config.get("run", "%run"))  # another name of the run list is an entry point of the command line
    return [id_ for id_ in config if id_ not in used and config[id_] not in runs]


def refuse_unknown_ids(extra: Sequence[str] = ()) -> None:
    """Stop a workflow whose config holds an id that nothing uses: a misspelt override would train the full run.

    To be the first item of a config's `run` list. Only ids that stand after `run` are refused: MONAI appends new ids
    of overlays and overrides at the end, while an id of the base file that lost its last use, because an override
    replaced the item that used it, is no mistake. `scripts/check_config.py` finds those in the base file.

    Args:
        extra: ids that are allowed though nothing refers to them.

    Paths that were typed are taken as typed, see `bundle.config.typed`; `1e3` is a whole number where one is wanted,
    and `false` is no text where true or false is.

    Raises:
        UserError: at least one id is unknown, or a path, a whole number or a flag cannot be taken as typed. MONAI wraps
            it in a RuntimeError for callers of its Python interface (`error.__cause__` is the UserError). Under
            `python -m monai.bundle` this and every later UserError is printed as one line and the process ends with
            code 2.
    """
    parser = running_parser()
    if _is_monai_command_line():
        print_any_text()
        sys.excepthook = _print_user_errors_as_one_line
        _take_as_typed(parser, sys.argv[1:])
    config = parser.config
    if not isinstance(config, dict):
        raise UserError("the config is no mapping of ids; start from one of the files in configs/")
    _take_plain_values(parser)
    ids = list(config)
    appended = set(ids[ids.index("run") :] if "run" in ids else ids)
    unknown = [id_ for id_ in unused_ids(config, extra) if id_ in appended]
    if not unknown:
        return
    valid = [id_.replace("::", "#") for id_, _ in walk({k: v for k, v in config.items() if k not in (*unknown, "")})]
    faults = " | ".join(f"config id `{id_}` is used by nothing{nearest(id_, valid)}" for id_ in unknown)
    raise UserError(f"{faults}; correct the name in the override or overlay, or leave it out")


def _take_as_typed(parser: ConfigParser, words: Sequence[str]) -> None:
    """Give paths and names the text that was typed, in place of what Fire and MONAI made of it.

    Raises:
        UserError: as `text_values`; or something has used a value that is another than was typed.
    """
    resolver = parser.ref_resolver
    for id_, value in text_values(typed_overrides(words)).items():
        if id_ not in resolver.items or resolver.items[id_].get_config() == value:
            continue
        if id_ in resolver.resolved_content:
            found = resolver.resolved_content[id_]
            raise UserError(f"--{id_} {value}: was read as {found!r}; give a path without ',' and '#', or as ./PATH")
        resolver.resolved_content[id_] = value


def _take_plain_values(parser: ConfigParser) -> None:
    """Give whole numbers and flags their type, and refuse what is no list or number where one is wanted.

    Raises:
        UserError: a value is none, such as `--max_epochs 2.5` or `--publish no`.
    """
    resolver = parser.ref_resolver
    for id_ in (*COUNTS, *SEEDS, *FLAGS, *_WANTED):
        value = resolver.items[id_].get_config() if id_ in resolver.items else None
        if value is None or (isinstance(value, str) and value.startswith(("$", "@", "%"))):
            continue
        plain: Any = _as_flag(value) if id_ in FLAGS else _as_whole(value, 1 if id_ in COUNTS else None)
        if id_ == "learning_rate":
            plain = value if isinstance(value, (int, float)) and value > 0 else None
        elif id_ in _WANTED:
            plain = value if isinstance(value, (list, tuple)) else None
        if plain is None:
            whole = "a whole number" + " from 1" * (id_ in COUNTS)
            wanted = "true or false" if id_ in FLAGS else _WANTED.get(id_, whole)
            raise UserError(f"--{id_} {value}: give {wanted}")
        if plain is not value:
            resolver.resolved_content[id_] = plain


def _as_flag(value: Any) -> bool | None:
    return {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower())


def _as_whole(value: Any, least: int | None) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not float(value).is_integer():
        return None
    return None if least is not None and value < least else int(value)


def running_parser() -> ConfigParser:
    """Return the ConfigParser that is evaluating the caller.

    MONAI gives components and expressions no handle on their parser, so it is taken from the call stack: some frame
    below is always a method of the parser (`get_parsed_content`), in `run`, ConfigWorkflow, FL and MONAI Label alike.
    """
    from monai.bundle import ConfigParser

    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        for value in frame.f_locals.values():
            if isinstance(value, ConfigParser):
                return value
        frame = frame.f_back
    raise UserError("refuse_unknown_ids runs only inside a MONAI config; put it first in the `run` list of the config")


def _print_user_errors_as_one_line(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """A `sys.excepthook`: MONAI wraps errors of components, and a user's mistake shall not show 40 lines of it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            print(f"error: {' '.join(str(cause).split())}", file=sys.stderr)
            raise SystemExit(2)  # the interpreter takes the exit code from an exception of the hook
        cause = cause.__cause__ or cause.__context__
    sys.__excepthook__(kind, error, traceback)


def _is_monai_command_line() -> bool:
    """Tell whether this process was started as `python -m monai.bundle` (torchrun -m included)."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name == "monai.bundle.__main__"
