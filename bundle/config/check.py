# SPDX-License-Identifier: Apache-2.0
"""Find every mistake in a MONAI config before it runs: references, macros, expressions, targets, arguments."""

from __future__ import annotations

import builtins
import re
import sys
import warnings
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from pydoc import ErrorDuringImport, locate
from typing import Any

import torch
from monai.bundle import ConfigComponent, ConfigExpression, ConfigParser, ReferenceResolver
from monai.inferers import Inferer
from monai.metrics import Metric
from monai.transforms import Transform
from monai.utils import CompInitMode
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from bundle.config import WORK_IDS, nearest, unused_ids, walk
from bundle.config.files import Fault, bases_of, load_merged, read_config, require_file
from bundle.config.rules import (
    argument_faults,
    expression_faults,
    has_stray_hash,
    imported_names,
    last_line,
    nearest_targets,
    root_cause,
)
from bundle.errors import UserError

# Components that need no data and do no work when they are built.
_BUILDABLE = (Module, Optimizer, LRScheduler, Transform, Inferer, Metric)
# Tools that read one standard-name file (MONAI Label, monai.bundle.load) bring no metadata with it.
_WITHOUT_METADATA = {"train", "evaluate", "inference"}


def check_file(
    path: Path, bases: Sequence[Path] = (), overrides: dict[str, Any] | None = None, instantiate: bool = True
) -> list[Fault]:
    """Return all faults of one config file, in the order of the checks.

    Args:
        path: a JSON or YAML config. A first comment line `# overlay of: train.json` names the base files.
        bases: base files to merge it over, instead of those that its comment names.
        overrides: ids and values that are merged last, as `monai.bundle run` does.
        instantiate: also build networks, losses, transforms, optimizers, inferers and metrics on the CPU.

    Raises:
        InputError: `path` or one of `bases` is no file.
    """
    for file in (path, *bases):
        require_file(file)
    if path.name == "metadata.json":  # MONAI merges it as `_meta_`: it holds no components and nothing refers to it
        return read_config(path)[1]
    bases = bases or bases_of(path)
    config, own_ids, faults = load_merged([*bases, path], overrides or {})
    if not config:
        return faults
    root = path.resolve().parent.parent if path.resolve().parent.name == "configs" else path.resolve().parent
    if str(root) not in sys.path:
        sys.path.insert(1, str(root))  # as ConfigWorkflow.run() does
    if (path.parent / "metadata.json").is_file():
        config["_meta_"] = read_config(path.parent / "metadata.json")[0]
    check = _Check(config, set(own_ids), reads_metadata=path.stem not in _WITHOUT_METADATA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check.run(instantiate)
    return list(dict.fromkeys([*faults, *check.faults]))


class _Check:
    """The checks of one merged config. Each neutralises what it finds, so that the next ones can go on."""

    def __init__(self, config: dict[str, Any], own_ids: set[str], reads_metadata: bool) -> None:
        self.parser = ConfigParser(config)
        self.own_ids = own_ids
        self.reads_metadata = reads_metadata
        self.faults: list[Fault] = []
        self.bad: set[str] = set()  # ids with a fault: what depends on them is not built
        self.copies: set[str] = set()  # ids that a macro copied from this config: checked where they came from
        self.components: dict[str, Any] = {}

    def run(self, instantiate: bool) -> None:
        self.check_macros()
        for id_ in unused_ids(self.parser.get()):
            if id_ in self.own_ids:
                self.fault(id_, "used by nothing" + nearest(id_, (known for known in self.ids() if known != id_)))
        self.parser.parse()
        self.check_strings()
        self.check_components()
        order = self.check_cycles()
        if instantiate:
            self.build(order)

    def fault(self, id_: str, message: str) -> None:
        self.faults.append(Fault(id_.replace("::", "#"), message))
        self.bad.add(id_)

    def ids(self) -> list[str]:
        return [id_.replace("::", "#") for id_, _ in walk(self.parser.get()) if id_]

    def items(self) -> list[tuple[str, Any]]:
        """Return `(id, value)` of what this file itself says: no metadata and no copies."""
        skip = tuple(f"{id_}::" for id_ in (*self.copies, "_meta_"))
        return [(id_, value) for id_, value in walk(self.parser.get()) if not f"{id_}::".startswith(skip)]

    def check_macros(self) -> None:
        """Resolve relative ids, as MONAI does first, and test the macros: `%id`, `%file`, `%file::id`."""
        for id_, value in self.items():
            if not isinstance(value, str):
                continue
            if has_stray_hash(value):
                self.fault(id_, f"MONAI turns `#` into `::` in {value!r}; write the text without `#`")
            try:
                self.parser[id_] = value = ConfigParser.resolve_relative_ids(id_, value)
                message = self.macro_fault(id_, value) if value.startswith("%") else ""
            except ValueError:
                message = f"the relative id in {value!r} leaves the config"
            if message:
                self.fault(id_, message)
                self.parser[id_] = None

    def macro_fault(self, id_: str, value: str) -> str:
        path, target = ConfigParser.split_path_id(value[1:])
        if not path:
            self.copies.add(id_)
            return "" if target in self.parser else f"macro to an unknown id `{target}`" + nearest(target, self.ids())
        source, faults = read_config(Path(path))
        if not source:
            return f"macro: {faults[0].message} (looked for from the working directory)"
        known = [other.replace("::", "#") for other, _ in walk(source) if other]
        missing = bool(target) and target not in ConfigParser(source)
        return f"macro to an unknown id `{target}` in {path}" + nearest(target, known) if missing else ""

    def check_strings(self) -> None:
        """Test references and expressions."""
        strings = [(id_, value) for id_, value in self.items() if isinstance(value, str)]
        names = {*dir(builtins), *self.parser.globals, "__local_refs"}
        names |= {name for _, value in strings for name in imported_names(value)}
        for id_, value in strings:
            if value.startswith("%"):
                self.fault(id_, f"macro {value!r} inside a macro's content stays a string; write it out")
            for target in ReferenceResolver.match_refs_pattern(value):
                if target not in self.parser.ref_resolver.items:
                    self.fault(id_, f"unknown id `@{target.replace('::', '#')}`{nearest(target, self.ids())}")
                elif target.split("::")[0] == "_meta_" and not self.reads_metadata:
                    self.fault(id_, "refers to `@_meta_`, but tools read a file of this name without the metadata")
            if ConfigExpression.is_expression(value):
                for message in expression_faults(value, names):
                    self.fault(id_, message)

    def check_components(self) -> None:
        """Test that every `_target_` can be imported and takes the arguments it is given."""
        for id_, value in self.items():
            if not isinstance(value, dict):
                continue
            if "_target_" not in value:
                for key in map(str, value) if id_ else ():
                    if re.fullmatch(r"_\w+_", key) and key not in ConfigComponent.non_arg_keys:
                        self.fault(id_, f"unknown keyword `{key}`{nearest(key, ConfigComponent.non_arg_keys)}")
            elif isinstance(value["_target_"], str) and value["_target_"][:1] not in "$@":
                self.check_component(id_, value)

    def check_component(self, id_: str, value: dict[str, Any]) -> None:
        target, mode = value["_target_"], value.get("_mode_", CompInitMode.DEFAULT)
        if mode not in list(CompInitMode):
            self.fault(id_, f"unknown `_mode_` {mode!r}; allowed: {', '.join(CompInitMode)}")
        try:
            component = locate(ConfigComponent(value, locator=self.parser.locator).resolve_module_name())
        except ErrorDuringImport as error:
            return self.fault(id_, f"importing `{target}` fails: {last_line(error.value or error)}")
        if component is None:
            return self.fault(id_, f"cannot import `{target}`" + nearest_targets(target, self.parser))
        self.components[id_] = component
        arguments = [str(key) for key in value if key not in ConfigComponent.non_arg_keys]
        for message in argument_faults(component, arguments, partial=mode == CompInitMode.CALLABLE):
            self.fault(id_, message)

    def check_cycles(self) -> list[str]:
        """Report circular references; return the ids with dependencies first, cycles cut open."""
        items = self.parser.ref_resolver.items
        self.needs = {
            id_: {n for n in ReferenceResolver.find_refs_in_config(item.get_config(), id_) if n in items}
            for id_, item in items.items()
        }
        while True:
            try:
                return list(TopologicalSorter(self.needs).static_order())
            except CycleError as error:
                cycle = [str(id_) for id_ in reversed(error.args[1])]
                self.needs[cycle[0]].discard(cycle[1])
                self.fault(cycle[0], "circular reference: " + " -> ".join(id_.replace("::", "#") for id_ in cycle))
                self.bad.update(cycle)

    def build(self, order: list[str]) -> None:
        """Build what needs no data; a failure is one fault, at the component where it arises."""
        # What is in here already is not evaluated: the check builds on the CPU whatever the config says.
        self.parser.ref_resolver.resolved_content["device"] = torch.device("cpu")
        for id_ in order:
            needed = self.closure(id_)
            if not self.is_component(id_) or id_.split("::")[0] in WORK_IDS or self.has_fault(needed):
                continue
            if all(_is_buildable(self.components.get(n)) for n in needed if self.is_component(n)):
                try:
                    self.parser.get_parsed_content(id_)
                except Exception as error:
                    root = root_cause(error)
                    # A missing file is the user's data or weights, which this check does not ask for.
                    if not isinstance(root, (FileNotFoundError, UserError)):
                        self.fault(id_, last_line(root))
                    self.bad.add(id_)

    def closure(self, id_: str) -> set[str]:
        found, todo = set(), [id_]
        while todo:
            current = todo.pop()
            if current not in found:
                found.add(current)
                todo += self.needs[current]
        return found

    def has_fault(self, ids: set[str]) -> bool:
        return any(bad == id_ or bad.startswith(f"{id_}::") for id_ in ids for bad in self.bad)

    def is_component(self, id_: str) -> bool:
        return ConfigComponent.is_instantiable(self.parser.ref_resolver.items[id_].get_config())


def _is_buildable(component: Any) -> bool:
    # DistributedDataParallel needs a process group, which only torchrun sets up.
    return (
        isinstance(component, type)
        and issubclass(component, _BUILDABLE)
        and not issubclass(component, DistributedDataParallel)
    )
