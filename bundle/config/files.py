# SPDX-License-Identifier: Apache-2.0
"""Read MONAI config files strictly: what their loaders pass over in silence is returned as a fault."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

from bundle.config import nearest, unused_ids, walk
from bundle.errors import InputError

_OVERLAY = re.compile(r"""^(?:#|\s*"_desc_":\s*")\s*overlay of:(.*)$""", re.MULTILINE | re.IGNORECASE)
_FILE_NAME = re.compile(r"[^\s,]+\.(?:json|ya?ml)\b")
_DOT = "; write it with a dot and a signed exponent (1.0e-4)"


class Fault(NamedTuple):
    """One mistake in a config.

    Args:
        where: the id as users write it (`train#trainer`), or `line:column` where the text itself is wrong.
        message: what is wrong, with the nearest valid names.
    """

    where: str
    message: str


def require_file(path: Path) -> None:
    """Raise InputError, with the nearest names in the folder, if `path` is no file."""
    if not path.is_file():
        raise InputError(path, "no such file" + _nearest_files(path), "give the name of a config file that exists")


def bases_of(path: Path) -> list[Path]:
    """Return the files that an overlay's comment line `# overlay of: train.json, other.yaml` names, beside it.

    JSON has no comments; there `"_desc_": "overlay of: train.json"` says the same.
    """
    found = _OVERLAY.search(path.read_text(encoding="utf-8", errors="replace"))
    return [path.parent / name for name in _FILE_NAME.findall(found.group(1))] if found else []


def read_config(path: Path) -> tuple[dict[str, Any], list[Fault]]:
    """Read one JSON or YAML config; a file that cannot be read gives an empty config and its fault."""
    if not path.is_file():
        return {}, [Fault("", f"no file {path}{_nearest_files(path)}")]
    faults: list[Fault] = []
    config: Any = None
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            config = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, faults))
        else:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            faults += _yaml_traps(node, set()) if node else []
            config = yaml.safe_load(text)
    except json.JSONDecodeError as error:
        return {}, [Fault(f"{error.lineno}:{error.colno}", f"JSON syntax: {error.msg}")]
    except yaml.MarkedYAMLError as error:
        return {}, [*faults, Fault(_position(error.problem_mark), f"YAML syntax: {error.problem}")]
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        return {}, [*faults, Fault("", f"not a text file in UTF-8: {str(error).splitlines()[0]}")]
    if not isinstance(config, dict):
        return {}, [*faults, Fault("1:1", f"a config is a mapping of ids, this is a {type(config).__name__}")]
    return {str(key): value for key, value in config.items()}, faults


def merge(parser: ConfigParser, changes: dict[str, Any]) -> list[Fault]:
    """Merge an overlay or overrides into a parser, as MONAI does (`a#b` goes into `a`, `+a` extends `a`)."""
    faults = []
    for key, value in changes.items():
        target = key.removeprefix("+")
        ids = [id_.replace("::", "#") for id_, _ in walk(parser.get()) if id_]
        if key.startswith("+") and target not in parser:
            faults.append(Fault(key, f"nothing to extend: no id `{target}`{nearest(target, ids)}"))
            continue
        try:
            merge_kv(parser, key, value)
        except (KeyError, IndexError, TypeError):
            faults.append(Fault(key, f"no such place in the config{nearest(target.replace('::', '#'), ids)}"))
        except ValueError:
            faults.append(Fault(key, "the value does not fit the item that it changes (mapping, list or plain value)"))
    return faults


def load_merged(files: Sequence[Path], overrides: dict[str, Any]) -> tuple[dict[str, Any], list[str], list[Fault]]:
    """Merge base files, the last file and overrides.

    Returns:
        The merged config; the top-level ids that the last file and the overrides add to the base, without those of the
        file whose last use an override replaced; the faults of the last file, of its overrides, and of base files that
        cannot be read.
    """
    parser = ConfigParser({})
    faults: list[Fault] = []
    for path in files[:-1]:
        config, base_faults = read_config(path)
        # Faults of a readable base file are reported when that file itself is checked.
        faults += [] if config else base_faults
        merge(parser, config)
    base_ids = set(parser.get())
    config, own_faults = read_config(files[-1])
    faults += own_faults
    faults += merge(parser, config)
    used = set(parser.get()).difference(unused_ids(parser.get())) if overrides else set()
    faults += merge(parser, overrides)
    merged = parser.get()
    faults += _drop_unreachable(merged, "")
    return merged, [id_ for id_ in merged if id_ not in base_ids | used], faults


def _drop_unreachable(config: Any, id_: str) -> Iterator[Fault]:
    """Remove and yield nested keys such as `a#b`, which MONAI takes for a path at the top level only."""
    for key, value in list(config.items() if isinstance(config, dict) else enumerate(config)):
        sub_id = f"{id_}#{key}" if id_ else str(key)
        if "#" in str(key) or "::" in str(key):
            del config[key]
            yield Fault(sub_id, "a key with `#` or `::` works only at the top level; nest the keys instead")
        elif isinstance(value, (dict, list)):
            yield from _drop_unreachable(value, sub_id)


def _nearest_files(path: Path) -> str:
    names = [entry.name for entry in path.parent.iterdir() if entry.is_file()] if path.parent.is_dir() else []
    return nearest(path.name, names)


def _unique(pairs: list[tuple[str, Any]], faults: list[Fault]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    faults += [Fault(key, "duplicate key: the last one wins in silence") for key in set(keys) if keys.count(key) > 1]
    return dict(pairs)


def _position(mark: yaml.Mark | None) -> str:
    return f"{mark.line + 1}:{mark.column + 1}" if mark else ""


def _yaml_traps(node: yaml.Node, seen: set[int]) -> Iterator[Fault]:
    """Yield duplicate keys, merge keys, and numbers that YAML 1.1 reads as strings (`1e-4` lacks the dot)."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if key.tag.endswith(":merge"):
                yield Fault(_position(key.start_mark), "merge key `<<` crashes MONAI's loader; write the keys out")
            elif key.tag.endswith((":bool", ":null")):
                yield Fault(_position(key.start_mark), f"the key `{key.value}` is no text in YAML; put it in quotes")
            elif key.value in keys:
                yield Fault(_position(key.start_mark), f"duplicate key `{key.value}`: the last one wins in silence")
            keys.add(str(key.value))
            yield from _yaml_traps(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _yaml_traps(item, seen)
    elif (
        isinstance(node, yaml.ScalarNode)
        and node.tag.endswith(":str")
        and not node.style
        and re.match(r"[-+.\d]", node.value)
    ):
        with contextlib.suppress(ValueError):
            number = float(node.value)
            if re.match(r"[-+.\d]", node.value):  # the words nan and inf may be meant as text
                yield Fault(_position(node.start_mark), f"`{node.value}` is read as a string, not as {number!r}{_DOT}")
