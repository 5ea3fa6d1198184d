# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with one expression, one string or one target of a MONAI config, seen by itself."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Collection, Iterator
from pydoc import ErrorDuringImport, locate
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver

from bundle.config import nearest


def has_stray_hash(value: str) -> bool:
    """Tell whether MONAI would rewrite a `#` of this string that is not part of an id."""
    if value.startswith("%"):
        return False
    without_ids = re.sub(r"@[\w#:]*", "", value)
    # Outside an expression an id is the whole string; elsewhere the `@` is text and its `#` is rewritten too.
    return "#" in (without_ids if value.startswith("$") or not without_ids else value)


def imported_names(value: str) -> list[str]:
    """Return the names that a string such as `$from pathlib import Path as P` defines for all expressions."""
    if not value.startswith("$"):
        return []
    try:
        body = ast.parse(value[1:].replace("@", "")).body
    except SyntaxError:
        return []
    statements = [node for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
    return [alias.asname or alias.name for node in statements for alias in node.names]


def expression_faults(value: str, names: Collection[str]) -> Iterator[str]:
    """Yield what is wrong with a `$` expression or `$import`; `names` are those that an expression may use."""
    code = ReferenceResolver.id_matcher.sub("__local_refs", ReferenceResolver.normalize_id(value[1:]))
    try:
        tree = ast.parse(code)
        if tree.body and isinstance(tree.body[0], (ast.Import, ast.ImportFrom)):
            yield from _import_faults(tree.body[0])
            return
        compile(code, "<expression>", "eval")
    except (SyntaxError, ValueError) as error:
        yield f"syntax error in {value!r}: {getattr(error, 'msg', error)}"
        return
    nodes = list(ast.walk(tree))
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    loaded = dict.fromkeys(node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))
    for name in loaded:
        if name not in bound and name not in names:
            yield f"name `{name}` in {value!r} is not defined or imported{nearest(name, names)}"


def argument_faults(component: Any, given: Collection[str], partial: bool) -> Iterator[str]:
    """Yield the unknown and the missing arguments of a call `component(**given)`; `partial` allows missing ones."""
    name = getattr(component, "__name__", type(component).__name__)
    try:
        parameters = inspect.signature(component).parameters.values()
    except (TypeError, ValueError):  # some callables written in C have no signature; some targets are no callables
        return
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for argument in given:
            if argument not in {p.name for p in named}:
                yield f"unknown argument `{argument}` of {name}{nearest(argument, (p.name for p in named))}"
    missing = [p.name for p in named if p.default is p.empty and p.name not in given]
    if missing and not partial:
        yield f"missing argument {', '.join(f'`{argument}`' for argument in missing)} of {name}"


def nearest_targets(target: str, parser: ConfigParser) -> str:
    """Return `; nearest: …` for a `_target_` that cannot be imported: names of the deepest part that can be."""
    if "." not in target:
        # MONAI keeps the table of its short names private; it is filled by the search that has just failed.
        return nearest(target, parser.locator._components_table or ())
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        prefix = ".".join(parts[:cut])
        owner = _located(prefix)
        if owner is not None:
            found = nearest(parts[cut], dir(owner)).replace("; nearest: ", "").split(", ")
            return f"; {prefix} has no `{parts[cut]}`" + "".join(f", nearest: {prefix}.{n}" for n in found[:1] if n)
    return f"; no module `{parts[0]}`"


def root_cause(error: BaseException) -> BaseException:
    """Return the first exception of a chain, under the wrappers that MONAI puts around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def last_line(error: BaseException) -> str:
    """Return `TypeError: …`, with the last line of the exception's text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__


def _located(path: str) -> Any:
    try:
        return locate(path)
    except ErrorDuringImport:
        return None


def _import_faults(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if len(node.names) > 1:
        yield "MONAI imports only the first name of a list; write one import per item"
    alias = node.names[0]
    module, attribute = (node.module, alias.name) if isinstance(node, ast.ImportFrom) else (alias.name, None)
    path = module if attribute is None else f"{module}.{attribute}"
    try:
        imported = importlib.import_module(module or "")
        if attribute is not None and not hasattr(imported, attribute) and _located(str(path)) is None:
            yield f"cannot import `{attribute}` from `{module}`{nearest(attribute, dir(imported))}"
    except Exception as error:  # importing runs the module, which may raise anything
        yield f"cannot import `{path}`: {last_line(error)}"
