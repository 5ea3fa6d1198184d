# SPDX-License-Identifier: Apache-2.0
"""What was typed on the command line of `monai.bundle run`, before its parser made numbers, tuples and ids of it.

Fire reads a value as a Python literal where it can: `2024` becomes a number, `a,b` a tuple, `x#1` loses what follows
the `#`; MONAI then makes `::` of any `#`. A path is text whatever it looks like; only a bracketed literal is a list.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.errors import UserError

_TEXT_ID = re.compile(r"(\w+_)?(dir|weights|root)|segmenter|init|dataset_name")
"""Top-level ids whose value is a path, or the name of a folder."""

_NOT_PLAIN = ("$", "@", "%", "[", "(", "'", '"')
"""How a value begins that says of itself what it is: an expression, a reference, a macro, a list, quoted text."""


def is_text_id(id_: str) -> bool:
    """Whether an id of a config is a path or a name, so that its value is text."""
    return _TEXT_ID.fullmatch(id_) is not None


def typed_overrides(words: Sequence[str]) -> dict[str, str | None]:
    """The overrides in the words of a command line, as Fire pairs them: `--id value` or `--id=value`.

    Args:
        words: the arguments.

    Returns:
        id -> what was typed; None where no value follows.
    """
    found: dict[str, str | None] = {}
    for place, word in enumerate(words):
        if not _is_flag(word) or word == "--":
            continue
        key, equals, value = word.lstrip("-").partition("=")
        following = words[place + 1] if place + 1 < len(words) else None
        has_value = following is not None and not _is_flag(following)
        found[key.replace("-", "_")] = value if equals else following if has_value else None
    return found


def text_values(typed: Mapping[str, str | None]) -> dict[str, Any]:
    """The values of the text ids among what was typed: as typed, or a list of texts for a bracketed literal.

    Expressions, references, macros and `None` are left out: they mean what MONAI makes of them.

    Raises:
        UserError: a value is missing, or a list holds something else than texts.
    """
    values: dict[str, Any] = {}
    for id_, text in typed.items():
        if not is_text_id(id_) or text in ("None", "null"):
            continue
        if text is None or not text.strip():
            raise UserError(f"--{id_}: give a value, such as --{id_} path/to/it")
        if not text.startswith(_NOT_PLAIN):
            values[id_] = text
        elif text.startswith(("[", "(", "'", '"')):
            values[id_] = _literal(id_, text)
    return values


def resolve_paths(words: Sequence[str], folder: Path) -> list[str]:
    """The words of a command line with relative paths made absolute, for a program that runs in another folder.

    Args:
        words: `--id value` or `--id=value`.
        folder: that the paths are relative to.

    Raises:
        UserError: as `text_values`.
    """
    values = {
        id_: [_absolute(item, folder) for item in value] if isinstance(value, list) else _absolute(value, folder)
        for id_, value in text_values(typed_overrides(words)).items()
        if id_ != "dataset_name"
    }
    result: list[str] = []
    replaced: str | None = None
    for word in words:
        if replaced is not None:
            result.append(replaced)
            replaced = None
            continue
        key, equals, _ = word.lstrip("-").partition("=")
        value = values.get(key.replace("-", "_")) if _is_flag(word) else None
        if value is not None and equals:
            result.append(f"--{key}={value}")
            continue
        replaced = None if value is None else str(value)
        result.append(word)
    return result


def _literal(id_: str, text: str) -> Any:
    from fire.parser import DefaultParseValue  # so that a list means here what it means to monai.bundle

    value = DefaultParseValue(text)
    items = [value] if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else [value]
    if not items or not all(isinstance(item, str) for item in items):
        raise UserError(f"--{id_} {text}: give one path, or a list of quoted ones such as \"['A','B']\"")
    # A value in brackets or quotes that is no literal is a name that begins so.
    return value if isinstance(value, str) else items


def _absolute(path: str, folder: Path) -> str:
    return os.path.abspath(folder / Path(path).expanduser())


def _is_flag(word: str) -> bool:
    return re.match(r"--|-[a-zA-Z]", word) is not None
