# SPDX-License-Identifier: Apache-2.0
"""What all tests share: one thread per worker, and golden files."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# Every run of the suite tries the same examples; `--hypothesis-profile=default` tries others.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
# pytest-xdist already fills the cores; torch and BLAS read this when first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A suite that a shell runs in the background ignores Ctrl-C, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Under nohup a suite ignores the end of its terminal; what it starts must not.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--refresh-golden",
        action="store_true",
        help="rewrite tests/golden/ from the present output; runs only the tests that use it",
    )
    fuzz = parser.getgroup("fuzz", "random designs for openhls (make fuzz)")
    fuzz.addoption("--fuzz-count", default=300, help="designs")
    fuzz.addoption("--fuzz-seed", default=1, help="seed of the designs")
    fuzz.addoption("--fuzz-layers", default=64, help="random layers on each engine's RTL")


def pytest_configure(config: pytest.Config) -> None:
    """Read the numbers of `make fuzz`."""
    for name, least in (("count", 1), ("seed", 0), ("layers", 1)):
        value = str(getattr(config.option, f"fuzz_{name}"))
        if not (value.isascii() and value.isdecimal() and int(value) >= least):
            raise pytest.UsageError(
                f"{name.upper()} (--fuzz-{name}) must be a whole number of at least {least}, "
                f"got '{value}'"
            )
        setattr(config.option, f"fuzz_{name}", int(value))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--refresh-golden"):
        return
    users = [item for item in items if "golden" in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=[item for item in items if item not in users])
    items[:] = users


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Finding no golden file to refresh is not a failure."""
    if (
        session.config.getoption("--refresh-golden")
        and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED
    ):
        session.exitstatus = pytest.ExitCode.OK


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the seed of the random designs, if they ran."""
    config = terminalreporter.config
    reports = [x for found in terminalreporter.stats.values() for x in found]
    if any("test_random_designs" in getattr(report, "nodeid", "") for report in reports):
        count, seed = config.getoption("--fuzz-count"), config.getoption("--fuzz-seed")
        terminalreporter.write_line(f"fuzz: {count} designs of seed {seed}")


@pytest.fixture
def root() -> Path:
    """The repository's root folder."""
    return ROOT


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Return `check(name, text)`: `text` equals tests/golden/NAME byte for byte."""
    refresh = request.config.getoption("--refresh-golden")

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if refresh:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"tests/golden/{name} is missing; make it with: make golden"
        expected = path.read_text(encoding="utf-8")
        assert text == expected, f"differs from tests/golden/{name}; if meant: make golden"

    return check
