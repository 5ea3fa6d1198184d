# SPDX-License-Identifier: Apache-2.0
"""Claims about what the command lines say of themselves."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

SCRIPTS = sorted(path.stem for path in Path(__file__).parents[2].glob("scripts/[a-z]*.py"))


class _BuiltError(Exception):
    """The parser that a script has built, in place of parsing."""


def _stop(parser: argparse.ArgumentParser, *_: object) -> NoReturn:
    raise _BuiltError(parser)


def _options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                yield from _options(part)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_option_of_a_command_line_says_what_it_is(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", _stop)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", _stop)
    with pytest.raises(_BuiltError) as built:
        importlib.import_module(f"scripts.{script}").main([])
    parser = built.value.args[0]
    assert parser.description
    unsaid = [action.option_strings or action.dest for action in _options(parser) if not action.help]
    assert unsaid == []
