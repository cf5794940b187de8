# SPDX-License-Identifier: Apache-2.0
"""The `winnow` command: `python -m winnow VERB --config NAME_OR_FILE`.

new      a configuration, a network and data to start from
data     what the data are, or how to get them
check    whether network, data and engine go together, found with untrained weights
run      every stage whose inputs or outputs have changed, then the report
profiles several networks of one configuration for one engine, made together
status   which stages are current, and why the others are not
report   the numbers of a build whose stages are all current
trace    where accuracy goes, layer by layer
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from winnow import process
from winnow.cli import STARTED, TOLD, Parser, guard
from winnow.config import load_config
from winnow.errors import ArtefactError, ConfigError
from winnow.flow import (
    BY_NAME,
    STAGES,
    Build,
    Stage,
    adopt,
    profile_builds,
    refuse_to_lose_import,
    stage_inputs,
    staleness,
)
from winnow.host import HLS_CHOICES, find_vitis
from winnow.lock import folder_lock
from winnow.new import commands, write_new
from winnow.place import ROOT, child_environment, config_place, default_out, require_plain
from winnow.programs import PROGRAMS, missing, refuse_missing

VERBS = {
    "data": "print what the data are, or how to get them",
    "check": "find out in seconds what a run would refuse",
    "run": "run every stage that has changed, then report",
    "status": "print which stages are current, and why the others are not",
    "profiles": "run every profile of a configuration, and bring them into one folder for a board",
    "report": "print the numbers of a build whose stages are all current",
    "trace": "print where accuracy goes: signal to noise of every layer",
    "bench": "measure speeds again without caches, and print all numbers",
    "cocotb": "run the cocotb regression on the RTL of a build or a tool",
    "place": "place and route modules on an ECP5 (optional tool), beside their estimates",
}
SAID = (129, 130, 141, 143)  # exit codes of a stage that has said why, or whom nobody hears
_NEW = "write a configuration, a network and data that run"
_EXAMPLE = "example: python -m winnow run --config digits"


@dataclass(frozen=True)
class Options:
    """How the stages of a run compute; handed to those that train."""

    device: str = "cpu"
    threads: int = 1
    progress: bool = False

    def arguments(self, stage: Stage) -> list[str]:
        """Return what the stage's own command line is given beside its files."""
        if stage.folder != "quant":
            return []
        progress = ["--progress"] if self.progress else []
        return ["--device", self.device, "--threads", str(self.threads), *progress]


def open_build(options: argparse.Namespace) -> Build:
    """Return the build that a command line names; ConfigError for a path that tools cannot take."""
    config = config_place(options.config)
    out = options.out or default_out(config)
    require_plain(out, "choose another folder with --out")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out: '{out}' is a file; name a folder")
    return Build(load_config(config), out, config_path=str(config))


def run(
    build: Build, options: Options, stages: Sequence[Stage], others: Sequence[Build] = ()
) -> None:
    """Run every one of `stages` that is not current, each in a process of its own.

    What one of the `others` made of the same is copied.
    """
    require_programs(build, stages)
    with folder_lock(build.out, "the build"):
        kept = [stage.name for stage in stages if not _run_if_stale(stage, build, options, others)]
        if kept:
            print(f"up to date: {', '.join(kept)}", flush=True)


def require_programs(build: Build, stages: Sequence[Stage]) -> None:
    """Raise ToolError if a stage that must run would start a program that is not installed."""
    lacking = {stage.name: lacks for stage in stages if (lacks := missing(stage.programs))}
    waiting = {name for name in lacking if _must_run(BY_NAME[name], build)}
    if waiting:
        names = {program for name in waiting for program in lacking[name]}
        refuse_missing(missing(names), [s.name for s in stages if s.name in waiting])


def _must_run(stage: Stage, build: Build) -> bool:
    try:
        return staleness(stage, build) is not None
    except ArtefactError:  # a stage before it has not run
        return True


def check(build: Build) -> None:
    """Find out what a whole run would refuse: first what it would lack, then all the rest."""
    whole = wanted_stages(None, vitis=False)
    require_programs(build, whole)
    found = {program for stage in whole for program in stage.programs}
    print(f"check: found {', '.join(name for name in PROGRAMS if name in found)}", flush=True)
    run(build, Options(), wanted_stages("check", vitis=False))


def wanted_stages(last: str | None, *, vitis: bool) -> list[Stage]:
    """Return the stages of a run in order: all, or `last` and what it needs."""
    if last is None:
        return [s for s in STAGES if not s.optional or (vitis and s.name == "vitis")]
    needed, waiting = set[str](), [last]
    while waiting:
        name = waiting.pop()
        needed.add(name)
        waiting += BY_NAME[name].reads
    return [stage for stage in STAGES if stage.name in needed]


def run_profiles(build: Build, options: Options) -> None:
    """Run all profiles of a configuration, every one checked before the first one trains."""
    found, stages = profile_builds(build), wanted_stages(None, vitis=False)
    for each in found.values():
        require_programs(each, stages)
    for part in (stages[:1], stages):
        for name, each in found.items():
            others = [build, *(other for other in found.values() if other is not each)]
            print(f"profile {name}:", flush=True)
            run(each, options, part, others)


def _run_if_stale(
    stage: Stage, build: Build, options: Options, others: Sequence[Build] = ()
) -> bool:
    """Run a stage unless it is current or another build has the same; return whether it ran."""
    reason = staleness(stage, build)
    if reason is None:
        return False
    refuse_to_lose_import(stage, build, reason)
    inputs = stage_inputs(stage, build)
    for other in others:
        if adopt(stage, build, inputs, other.out) and staleness(stage, build) is None:
            print(f"{stage.name}: that of '{other.out}', which is the same", flush=True)
            return True
    start(stage.folder, stage.name, build, options.arguments(stage))
    left = staleness(stage, build)
    if left is not None:
        raise ArtefactError(f"'{build.out}': stage '{stage.name}' ended, but {left}; run it again")
    return True


def start(folder: str, verb: str, build: Build, arguments: Sequence[str] = ()) -> None:
    """Run a verb of a folder's command line; raises SystemExit with its exit code if it fails."""
    command = [sys.executable, "-m", folder, verb]
    command += ["--config", build.config_path, "--out", str(build.out), *arguments]
    # Asked by SIGHUP, it ends without a word: the one line is ours.
    variables = {**child_environment(), STARTED: "1"}
    code = process.run(command, capture=False, ending=signal.SIGHUP, env=variables).code
    if code == TOLD:
        raise SystemExit(1)
    if code:
        if code not in SAID:
            _tell_end(verb, code)
        raise SystemExit(code if code > 0 else 128 - code)


def _tell_end(verb: str, code: int) -> None:
    """Say how a stage ended that could not say it."""
    how = f"ended with exit code {code} and no word of its own"
    if code < 0:
        why = ", most often for want of memory" if -code == signal.SIGKILL else ""
        how = f"was ended by {signal.Signals(-code).name}{why}"
    print(f"error: '{verb}' {how}", file=sys.stderr, flush=True)


def status(build: Build) -> None:
    """Print a line per stage; a stage after one that must run must run too, or be checked again."""
    current: set[str] = set()
    width = max(len(stage.name) for stage in STAGES) + 2
    for stage in STAGES:
        waits = [name for name in stage.reads if name not in current]
        reason = f"after {', '.join(waits)}" if waits else staleness(stage, build)
        if reason is None:
            current.add(stage.name)
        print(f"{stage.name:<{width}}{'current' if reason is None else f'must run: {reason}'}")


def parser() -> Parser:
    """Return the parser of all verbs."""
    whole = Parser(
        prog="python -m winnow",
        description="From a network to verified RTL: run what has changed, say what holds.",
        epilog=_EXAMPLE,
    )
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="VERB")
    made = verbs.add_parser("new", help=_NEW, description=f"{_NEW.capitalize()}.")
    made.add_argument("name", metavar="NAME", help="new folder, and name of the configuration")
    made.add_argument("--folder", type=Path, metavar="DIR", help="images: DIR/train/CLASS/*")
    for name, summary in VERBS.items():
        verb = verbs.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
        _add_options(verb, name)
    return whole


def _add_options(verb: argparse.ArgumentParser, name: str) -> None:
    verb.add_argument(
        "--config", required=True, metavar="NAME", help="name in configs/, or path of a .toml file"
    )
    verb.add_argument("--out", type=Path, help="folder of the build's files (build/NAME)")
    if name in ("run", "profiles"):
        verb.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="for training")
        verb.add_argument("--threads", type=int, default=1, metavar="N", help="for training (1)")
        verb.add_argument("--progress", action="store_true", help="bars without a terminal too")
    if name == "run":
        names = [stage.name for stage in STAGES]
        verb.add_argument("--hls", default=HLS_CHOICES[0], choices=HLS_CHOICES, help="Vitis too?")
        verb.add_argument("--to", choices=names, metavar="STAGE", help="stop there, no report")
    if name == "cocotb":
        verb.add_argument("--rtl", help="folder of other RTL to run, e.g. of Vitis")
        verb.add_argument("--waves", action="store_true", help="write waveforms beside the log")
    if name == "place":
        verb.add_argument(
            "--module", action="append", default=[], help="only this one; may be given again"
        )
        verb.add_argument("--seeds", type=int, default=1, metavar="N", help="per module (1)")
        verb.add_argument("--minutes", type=int, metavar="N", help="a module may take with a seed")


def new(options: argparse.Namespace) -> None:
    """Write a starting project and print what it is."""
    installed = Path(sys.argv[0]).stem == "winnow" or not (ROOT / "Makefile").is_file()
    files = write_new(options.name, options.folder, installed=installed)
    print(f"new: {', '.join(map(str, files))}")
    print(f"next: {commands(files[0], installed=installed)[0]}")


def main() -> None:
    """Run one verb."""
    options = parser().parse_args()
    if options.verb == "new":
        new(options)
    else:
        work(options, open_build(options))


def work(options: argparse.Namespace, build: Build) -> None:
    """Run a verb that works on a build."""
    if options.verb == "status":
        status(build)
    elif options.verb == "check":
        check(build)
    elif options.verb == "profiles":
        run_profiles(build, _how(options))
        start("deploy", "profiles", build)
    elif options.verb == "run":
        how = _how(options)
        if options.hls == "vitis":
            find_vitis()
        run(build, how, wanted_stages(options.to, vitis=options.hls == "vitis"))
        if options.to is None:
            start("sim", "report", build)
    elif options.verb in ("data", "trace"):
        start("quant", options.verb, build)
    else:
        start("sim", options.verb, build, _sim_arguments(options))
        if options.verb == "bench":
            start("deploy", "bench", build)


def _how(options: argparse.Namespace) -> Options:
    if options.threads < 1:
        raise ConfigError(f"--threads must be at least 1, got {options.threads}")
    return Options(options.device, options.threads, options.progress)


def _sim_arguments(options: argparse.Namespace) -> list[str]:
    if options.verb == "cocotb":
        return [*(["--rtl", options.rtl] if options.rtl else []), *(["--waves"] * options.waves)]
    if options.verb == "place":
        chosen = [word for name in options.module for word in ("--module", name)]
        limit = [] if options.minutes is None else ["--minutes", str(options.minutes)]
        return [*chosen, "--seeds", str(options.seeds), *limit]
    return []


def script() -> int:
    """Run as the installed command `winnow`; return its exit code."""
    return guard(main)


if __name__ == "__main__":
    sys.exit(script())
