# SPDX-License-Identifier: Apache-2.0
"""The rules of the tree: import order, no cycles, where torch may be, size limits.

Each rule takes a tree and returns its complaints; each is also shown to fail on a bad example.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ORDER = ("winnow", "quant", "codegen", "openhls", "sim", "deploy")  # imports go to the left only
TORCH = {"torch", "torchvision", "brevitas"}
TORCH_PLACES = ("quant/", "codegen/lower.py")
PICKLERS = {"pickle", "cPickle", "_pickle", "shelve", "dill", "cloudpickle", "joblib"}
# CIFAR-10's own files, read without running them; and what torch.load raises.
PICKLE_PLACES = ("quant/data/cifar10.py", "quant/interchange/torch_import.py")
PROCESS_PLACE = "winnow/process.py"
PROCESSES = {
    *("subprocess", "multiprocessing", "pty", "os.fork", "os.system"),
    "concurrent.futures.ProcessPoolExecutor",
}
VAGUE_NAMES = {"utils", "util", "common", "misc", "helpers"}
FILE_LINES, FUNCTION_LINES, NUM_TEMPLATES = 600, 60, 3
CODE = {".py", ".hpp", ".cpp", ".j2"}
TEXT = CODE | {".md", ".toml", ".yaml", ".tcl", ".sv", ""}
MACHINE_PATH = re.compile(r"(?<![\w.)\]}>/-])/(?:home|root|Users|work|mnt|scratch)/\w")
SPDX = "SPDX-License-Identifier: Apache-2.0"

Rule = Callable[[Path], Iterator[str]]


def sources(root: Path, suffixes: set[str]) -> Iterator[tuple[Path, str]]:
    """Yield (path, relative name) of the tree's own files; hidden and generated ones excepted."""
    left_out = {"build", "__pycache__", "shared"}
    for path in sorted(root.iterdir()):
        if path.name.startswith(".") or path.name in left_out or path.name.endswith(".egg-info"):
            continue
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and file.suffix in suffixes and "__pycache__" not in file.parts:
                yield file, file.relative_to(root).as_posix()


def trees(root: Path) -> Iterator[tuple[str, ast.Module]]:
    """Yield (relative name, syntax tree) of every Python file."""
    for path, name in sources(root, {".py"}):
        yield name, ast.parse(path.read_text(encoding="utf-8"), name)


def module_name(name: str) -> str:
    """Return the dotted module of a relative file name: "a/__init__.py" is "a"."""
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(name: str, tree: ast.Module) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Yield (line, module, imported names) of every import, deferred ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = name.split("/")[: -node.level] if node.level else []
            module = ".".join([*package, node.module] if node.module else package)
            yield node.lineno, module, tuple(alias.name for alias in node.names)


def import_order(root: Path) -> Iterator[str]:
    """Nothing imports to its right; codegen reaches quant only from lower.py."""
    for name, tree in trees(root):
        folder = name.split("/")[0]
        if folder not in ORDER:
            continue
        allowed = set(ORDER[: ORDER.index(folder) + 1])
        if folder == "codegen" and name != "codegen/lower.py":
            allowed.remove("quant")
        for line, module, _ in imports(name, tree):
            target = module.split(".")[0]
            if target in {*ORDER, "tests"} - allowed:
                yield f"{name}:{line}: {folder} may not import {target}"


def torch_places(root: Path) -> Iterator[str]:
    """torch and brevitas only where models are trained or lowered."""
    for name, tree in trees(root):
        if not name.startswith((*TORCH_PLACES, "tests/")):
            for line, module, _ in imports(name, tree):
                if module.split(".")[0] in TORCH:
                    yield f"{name}:{line}: {module} belongs in {' and '.join(TORCH_PLACES)}"


def no_pickle(root: Path) -> Iterator[str]:
    """Loading a pickle runs what it says; a cache or an artefact is JSON or npz."""
    for name, tree in trees(root):
        if name not in PICKLE_PLACES and not name.startswith("tests/"):
            for line, module, _ in imports(name, tree):
                if module.split(".")[0] in PICKLERS:
                    yield f"{name}:{line}: {module} runs what a file says; write JSON or npz"


def no_processes(root: Path) -> Iterator[str]:
    """Every child process is started where it is made to end with us."""
    for name, tree in trees(root):
        if name != PROCESS_PLACE and name.split("/")[0] in ORDER:
            for line, module, names in imports(name, tree):
                if {module, *(f"{module}.{n}" for n in names)} & PROCESSES:
                    yield f"{name}:{line}: start processes through winnow.process, not {module}"


def import_graph(root: Path) -> dict[str, set[str]]:
    """Return which module of the tree imports which."""
    files = {module_name(name): (name, tree) for name, tree in trees(root)}
    graph: dict[str, set[str]] = {}
    for module, (name, tree) in files.items():
        reached: set[str] = set()
        for _, target, names in imports(name, tree):
            below = {f"{target}.{n}" for n in names} & files.keys()
            reached |= below
            if target in files and (len(below) < len(names) or not names):
                reached.add(target)
        graph[module] = reached
    return graph


def no_cycles(root: Path) -> Iterator[str]:
    """No module imports itself, however long the way round."""
    graph = import_graph(root)
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> Iterator[str]:
        if module in trail:
            yield "import cycle: " + " -> ".join([*trail[trail.index(module) :], module])
        elif module not in done:
            for target in sorted(graph[module]):
                yield from visit(target, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        yield from visit(module, ())


def no_folder_cycles(root: Path) -> Iterator[str]:
    """Inside quant/ no folder needs one that needs it; a file at its top is a place of its own."""

    def place(module: str) -> str:
        parts = module.split(".")
        is_folder = len(parts) > 1 and (root / parts[0] / parts[1]).is_dir()
        return ".".join(parts[:2]) if is_folder else module

    reached: dict[str, set[str]] = {}
    for module, targets in import_graph(root).items():
        if module.startswith("quant."):
            inside = {place(target) for target in targets if target.startswith("quant.")}
            reached.setdefault(place(module), set()).update(inside - {place(module)})
    told: set[str] = set()
    for start in sorted(reached):
        waiting, seen = list(reached[start]), set[str]()
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += reached.get(name, ())
        if start in seen and start not in told:
            told |= seen
            yield f"{start} is part of a circle of folders: {', '.join(sorted(seen))}"


def no_star_imports(root: Path) -> Iterator[str]:
    """A reader must see where a name comes from."""
    for name, tree in trees(root):
        for line, module, names in imports(name, tree):
            if "*" in names:
                yield f"{name}:{line}: import the names you need from {module}, not *"


def telling_names(root: Path) -> Iterator[str]:
    """A helper belongs to the concept it helps."""
    for path, name in sources(root, CODE):
        if path.name.split(".")[0] in VAGUE_NAMES:
            yield f"{name}: name the file after its concept"


def spdx_headers(root: Path) -> Iterator[str]:
    """One licence line at the top of every source file."""
    for path, name in sources(root, CODE):
        if not any(SPDX in line for line in path.read_text(encoding="utf-8").splitlines()[:2]):
            yield f"{name}: must begin with '{SPDX}' in a comment"


def file_lines(root: Path) -> Iterator[str]:
    """A file is split before it is too long to read."""
    for path, name in sources(root, CODE):
        num_lines = len(path.read_text(encoding="utf-8").splitlines())
        if num_lines > FILE_LINES:
            yield f"{name}: {num_lines} lines, at most {FILE_LINES}"


def function_lines(root: Path) -> Iterator[str]:
    """A function is split before it is too long to read."""
    for name, tree in trees(root):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                num_lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if num_lines > FUNCTION_LINES:
                    yield (
                        f"{name}:{node.lineno}: {node.name} has {num_lines} lines, "
                        f"at most {FUNCTION_LINES}"
                    )


def few_templates(root: Path) -> Iterator[str]:
    """Jinja only for what C++ templates cannot express; no Python among them."""
    names = [name for _, name in sources(root, CODE) if name.startswith("hls_templates/")]
    templates = [name for name in names if name.endswith(".j2")]
    if len(templates) > NUM_TEMPLATES:
        yield f"hls_templates: {len(templates)} .j2 files, at most {NUM_TEMPLATES}: {templates}"
    yield from (f"{name}: no Python in hls_templates" for name in names if name.endswith(".py"))


def no_machine_paths(root: Path) -> Iterator[str]:
    """Nothing names a folder of somebody's machine."""
    for path, name in sources(root, TEXT):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if MACHINE_PATH.search(line):
                yield f"{name}:{number}: absolute machine path: {line.strip()}"


RULES: tuple[Rule, ...] = (
    import_order,
    torch_places,
    no_pickle,
    no_processes,
    no_cycles,
    no_folder_cycles,
    no_star_imports,
    telling_names,
    spdx_headers,
    file_lines,
    function_lines,
    few_templates,
    no_machine_paths,
)

# (rule, files of a tree that breaks it, what the complaint says)
BAD: tuple[tuple[Rule, dict[str, str], str], ...] = (
    (import_order, {"winnow/a.py": "import quant.b"}, "winnow may not import quant"),
    (import_order, {"winnow/a.py": "from sim import b"}, "winnow may not import sim"),
    (import_order, {"codegen/a.py": "from quant.b import c"}, "codegen may not import quant"),
    (import_order, {"sim/a.py": "def f():\n    import deploy"}, "sim/a.py:2: sim may not"),
    (import_order, {"sim/a.py": "import tests.conftest"}, "sim may not import tests"),
    (torch_places, {"codegen/pack.py": "import torch"}, "codegen/pack.py:1: torch belongs in"),
    (torch_places, {"sim/a.py": "from brevitas.nn import QuantConv2d"}, "brevitas.nn belongs in"),
    (no_pickle, {"sim/a.py": "import pickle"}, "sim/a.py:1: pickle runs what a file says"),
    (no_pickle, {"quant/a.py": "from joblib import load"}, "quant/a.py:1: joblib runs"),
    (no_processes, {"sim/a.py": "import subprocess"}, "start processes through winnow.process"),
    (no_processes, {"sim/a.py": "from os import system"}, "winnow.process, not os"),
    (
        no_processes,
        {"sim/a.py": "from concurrent.futures import ProcessPoolExecutor"},
        "winnow.process, not concurrent.futures",
    ),
    (no_cycles, {"a/b.py": "import a.c", "a/c.py": "from a.b import x"}, "a.b -> a.c -> a.b"),
    (no_cycles, {"a/b.py": "from . import c", "a/c.py": "from .b import x"}, "a.b -> a.c -> a.b"),
    (no_cycles, {"a/__init__.py": "from a.b import x", "a/b.py": "from a import y"}, "a -> a.b"),
    (
        no_folder_cycles,
        {"quant/a/x.py": "import quant.b.y", "quant/b/z.py": "import quant.a.w"}
        | {"quant/b/y.py": "", "quant/a/w.py": "", "quant/c.py": "import quant.a.x"},
        "quant.a is part of a circle of folders: quant.a, quant.b",
    ),
    (no_star_imports, {"sim/a.py": "from os import *"}, "from os, not *"),
    (telling_names, {"quant/utils.py": ""}, "quant/utils.py: name the file"),
    (telling_names, {"hls_templates/include/common.hpp": ""}, "common.hpp: name the file"),
    (spdx_headers, {"sim/a.py": "x = 1"}, "sim/a.py: must begin with"),
    (spdx_headers, {"hls_templates/a.hpp": "\n\n\n// " + SPDX}, "a.hpp: must begin with"),
    (file_lines, {"sim/a.cpp": "\n" * 601}, "sim/a.cpp: 601 lines, at most 600"),
    (function_lines, {"sim/a.py": "def f():\n" + "    1\n" * 60}, "f has 61 lines, at most 60"),
    (few_templates, {f"hls_templates/{i}.j2": "" for i in range(4)}, "4 .j2 files, at most 3"),
    (few_templates, {"hls_templates/a.py": ""}, "no Python in hls_templates"),
    (no_machine_paths, {"docs/a.md": "see /" + "home/me/x"}, "a.md:1: absolute machine path"),
    (no_machine_paths, {"Makefile": "X = '/" + "root/x'"}, "Makefile:1: absolute machine path"),
)


def plant(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_tree_keeps_rule(rule: Rule, root: Path) -> None:
    assert list(rule(root)) == []


@pytest.mark.parametrize(("rule", "files", "complaint"), BAD)
def test_rule_fails_on_bad_example(
    rule: Rule, files: dict[str, str], complaint: str, tmp_path: Path
) -> None:
    plant(tmp_path, files)
    complaints = list(rule(tmp_path))
    assert len(complaints) == 1
    assert complaint in complaints[0]


def test_every_rule_has_a_bad_example() -> None:
    assert {rule for rule, _, _ in BAD} == set(RULES)


def test_rules_accept_a_good_tree(tmp_path: Path) -> None:
    header = f"# {SPDX}\n"
    files = {
        "winnow/a.py": header + "import numpy",
        "quant/a.py": header + "import torch\nfrom winnow.a import x",
        "codegen/lower.py": header + "import brevitas\nfrom quant import a",
        "codegen/__init__.py": header + "from codegen.lower import x",
        "sim/a.py": header + "import codegen\nimport winnow.a",
        "tests/test_a.py": header + "import torch\nimport deploy",
        "README.md": "https://example.org/work/x and ./home/x and $HOME/x",
        "build/x/utils.py": "from torch import *",
        ".venv/utils.py": "from torch import *",
    }
    plant(tmp_path, files)
    assert [complaint for rule in RULES for complaint in rule(tmp_path)] == []
