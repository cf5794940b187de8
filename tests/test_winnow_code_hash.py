# SPDX-License-Identifier: Apache-2.0
"""A code hash follows imports and behaviour, not text."""

from __future__ import annotations

from pathlib import Path

import pytest

from winnow.code_hash import closure, code_hash, files_hash, tool_versions
from winnow.flow import STAGES

FILES = {
    "pkg/__init__.py": "",
    "pkg/a.py": "from pkg import b\nfrom pkg.sub.c import f\nimport os\n",
    "pkg/b.py": "X = 1\n",
    "pkg/sub/__init__.py": "",
    "pkg/sub/c.py": 'def f():\n    """Old."""\n    from ..d import y\n    return y\n',
    "pkg/d.py": "y = 2\n",
    "pkg/alone.py": "z = 3\n",
}


def tree(folder: Path, **changes: str) -> Path:
    """Write the tree with some files changed; a key is a path with _ for / and without .py."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        key = name.removesuffix(".py").replace("/", "_")
        path.write_text(changes.get(key, text))
    return folder


def test_closure_follows_all_kinds_of_imports(tmp_path: Path) -> None:
    root = tree(tmp_path)
    names = {"pkg", "pkg.a", "pkg.b", "pkg.sub", "pkg.sub.c", "pkg.d"}
    assert closure("pkg.a", root) == names
    assert closure("pkg.alone", root) == {"pkg", "pkg.alone"}
    with pytest.raises(ValueError, match=r"has no module 'pkg\.none'"):
        closure("pkg.none", root)


SAME = {
    "pkg_b": "# a comment\nX  =  1  # and another\n",
    "pkg_sub_c": 'def f():\n    """New."""\n\n    from ..d import y\n\n    return y\n',
    "pkg_alone": "z = 4\n",
}
OTHER = {
    "pkg_b": "X = 2\n",
    "pkg_sub_c": "def f():\n    from ..d import y\n    return -y\n",
    "pkg_d": "y = '2'\n",
    "pkg___init__": "import pkg.alone\n",
}


@pytest.mark.parametrize("key", SAME)
def test_comments_docstrings_and_unrelated_files_change_nothing(tmp_path: Path, key: str) -> None:
    before = code_hash(["pkg.a"], tree(tmp_path / "old"))
    assert code_hash(["pkg.a"], tree(tmp_path / "new", **{key: SAME[key]})) == before


@pytest.mark.parametrize("key", OTHER)
def test_behaviour_changes_the_hash(tmp_path: Path, key: str) -> None:
    before = code_hash(["pkg.a"], tree(tmp_path / "old"))
    assert code_hash(["pkg.a"], tree(tmp_path / "new", **{key: OTHER[key]})) != before


def test_files_hash_sees_names_contents_and_new_files(tmp_path: Path) -> None:
    hashes = []
    (tmp_path / "inc" / "sub").mkdir(parents=True)
    for name, text in (("a.h", "1"), ("sub/b.h", "2"), ("a.h", "3"), ("c.h", "")):
        (tmp_path / "inc" / name).write_text(text)
        hashes.append(files_hash(["inc"], tmp_path))
    (tmp_path / "inc" / "a.h").rename(tmp_path / "inc" / "d.h")
    hashes.append(files_hash(["inc"], tmp_path))
    assert len(set(hashes)) == len(hashes)
    (tmp_path / "inc" / "__pycache__").mkdir()
    (tmp_path / "inc" / "__pycache__" / "x.pyc").write_text("")
    assert files_hash(["inc"], tmp_path) == hashes[-1]


def test_versions_of_tools() -> None:
    assert tool_versions(["numpy", "no-such-tool"]).endswith(" no-such-tool=missing")


def test_stages_reach_what_they_should(root: Path) -> None:
    """Training does not depend on the C++ engine, nor synthesis on training."""
    reached = {stage.name: closure(stage.module, root) for stage in STAGES}
    for name in ("train", "prune", "qat"):
        assert not any(m.startswith(("codegen.", "openhls.", "sim.")) for m in reached[name])
    for name in ("rtl", "synth", "rtlsim", "csim"):
        assert not any(m.startswith("quant.") for m in reached[name])
    assert "winnow.winograd" in reached["prune"]
    assert "quant.data.cifar10" in reached["train"]
