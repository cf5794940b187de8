# SPDX-License-Identifier: Apache-2.0
"""Command line: `python -m deploy VERB --config NAME_OR_FILE`.

bundle    the stage: what a board gets, checked on a virtual board
overlay   one wheel for a board, of a build that is current
profiles  several networks for one engine in one folder and wheel
exits     a network whose images leave early, in one folder and wheel
board     a virtual board on this machine, for clients of pynq
vivado    scripts that make a bitstream with Vivado
push      the wheel to a board over ssh
bench     how fast driver and virtual boards are
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from deploy.bench import bench
from deploy.exits import check_exits, write_exits
from deploy.handoff import write_overlay
from deploy.profiles import (
    FOLDER,
    check_profiles,
    format_profiles,
    read_profiles,
    row,
    write_profiles,
)
from deploy.push import push, require_host, steps
from deploy.pynq_venv import pynq_python
from deploy.virtual_board import rtl_digest
from deploy.vivado import COPIED, write_scripts
from deploy.wheel import Bitstream, has_bitstream, package_name, require_of, write_wheel
from sim import rtl
from sim.exits import exits, require_leaving
from winnow import process
from winnow.__main__ import open_build
from winnow.boards import BOARDS, find_board
from winnow.cli import guard
from winnow.errors import ArtefactError, ConfigError, shown
from winnow.flow import Build, profile_builds, require_current
from winnow.place import child_environment
from winnow.stage_cli import open_build as open_stage
from winnow.stage_cli import run_verb, stage_parser


def _bitstream(options: argparse.Namespace) -> Bitstream | None:
    """Return the bitstream that shall be packed, if any, once its files are there."""
    if (options.bit is None) != (options.clock is None):
        raise ConfigError(
            "--bit FILE and --clock MHZ go together: the clock at which timing closed"
        )
    bitstream = None if options.bit is None else Bitstream(options.bit, options.clock)
    if bitstream:
        bitstream.files()
    return bitstream


def overlay(options: argparse.Namespace, build: Build) -> None:
    """Write the wheel of a build whose stages are current."""
    bitstream = _bitstream(options)
    if options.check:
        return
    require_current(["bundle"], build, verb="run")
    path = write_wheel(build.out, build.out / "bundle", build.out.name, bitstream)
    kilobytes = path.stat().st_size / 1000
    held = "driver, network, bitstream" if bitstream else "driver and network, no bitstream"
    print(f"overlay: {path} ({held}, {kilobytes:.0f} kB)")


def profiles(options: argparse.Namespace, build: Build) -> None:
    """Write the folder and the wheel of a configuration's profiles; print what each of them is."""
    bitstream = _bitstream(options)
    profile_builds(build)
    if options.check:
        return
    builds, folder = read_profiles(build), build.out / FOLDER
    write_profiles(folder, builds)
    values = check_profiles(builds, folder)
    wheel = write_wheel(build.out, folder, f"{build.out.name}-profiles", bitstream)
    print(format_profiles([row(name, each) for name, each in builds.items()]))
    print(
        f"profiles: one engine, loaded together on a virtual board = Brevitas on {values} values; "
        f"{folder}, {wheel}"
    )


def early(options: argparse.Namespace, build: Build) -> None:
    """Write the bundle and the wheel of a build's network with its early exits."""
    bitstream = _bitstream(options)
    if not build.config.model.exit_numbers or build.config.model.exit:
        raise ConfigError(
            "early exits need a network that is deployed with them: set model.exit_after, and "
            "model.exit to 0"
        )
    require_leaving(build, options.threshold)
    if options.check:
        return
    require_current(["bundle"], build, verb="run")
    made = exits(build, options.threshold)
    folder = write_exits(build, made)
    values = check_exits(build, made, folder)
    wheel = write_wheel(build.out, folder, f"{build.out.name}-exits", bitstream)
    print(
        f"exits: driver on a virtual board = C++ = interpreter on {values} values; {folder}, "
        f"{wheel}"
    )


def board(options: argparse.Namespace, build: Build) -> None:
    """Serve a virtual board until somebody ends it, and print how a client uses it."""
    if not options.host.startswith("127.") and not options.anyone:
        raise ConfigError(
            f"--host must be 127.0.0.N, got {shown(options.host)}; other machines get in with "
            f"--anyone: whoever reaches the port may run what they like on the board"
        )
    place, python = find_board(options.board), pynq_python()
    if options.check:
        return
    require_current(["bundle"], build, verb="run")
    wheel = write_wheel(build.out, build.out / "bundle", build.out.name)
    digest = rtl_digest(build.rtl)
    bit = write_overlay(build.out / "board", place, digest)
    binary = rtl.build(build.rtl, build.config.engine, build.cache / "rtl").binary
    package = package_name(build.out.name)
    print(f"board: {place.name} at {options.host}, simulated; in another terminal:")
    print(f"  {python} -m pip install --no-index --no-deps --force-reinstall '{wheel}'")
    print(f"  PYNQ_REMOTE_DEVICES={options.host} {python} -m {package} {bit}", flush=True)
    command: list[str | Path] = [python, "-m", "deploy.server", binary, digest.hex()]
    command += ["--board", place.name, "--host", options.host]
    code = process.run(command, capture=False, env=child_environment()).code
    if code:
        raise SystemExit(code if code > 0 else 128 - code)


def vivado(options: argparse.Namespace, build: Build) -> None:
    """Write the scripts of a board, and print how they are run."""
    place = find_board(options.board)
    if options.check:
        return
    require_current(["rtl"], build)
    folder = build.out / "vivado" / place.name
    write_scripts(folder, build.rtl, place, build.config.target.clock_mhz)
    print(f"vivado: scripts of {place.name} in {folder}, never run by us; with Vivado on the PATH:")
    for name in COPIED:
        print(f"  vivado -mode batch -source {folder / name}")


def send(options: argparse.Namespace, build: Build) -> None:
    """Bring the build's wheel to a board, or print the commands that would."""
    host = require_host(options.to)
    if options.check:
        return
    require_current(["bundle"], build, verb="run")
    package = package_name(build.out.name)
    wheels = list(build.out.glob(f"{package}-*.whl"))
    if len(wheels) != 1:
        raise ArtefactError(
            f"'{build.out}' holds {len(wheels)} wheels, must be 1; run: make overlay"
        )
    (wheel,) = wheels
    require_of(wheel, build.out / "bundle", package)
    found = steps(wheel, package, host, has_bitstream=has_bitstream(wheel))
    if options.dry_run:
        print("\n".join(step.line for step in found))
    else:
        push(found, host)


def measured(options: argparse.Namespace, build: Build) -> None:
    """Print how fast driver and virtual boards are."""
    if not options.check:
        bench(build)


VERBS = {
    "push": (send, "bring the wheel of a build to a board over ssh, and check the board"),
    "vivado": (vivado, "write scripts that make a board's bitstream with Vivado"),
    "overlay": (overlay, "write one wheel for a board, of a build that is current"),
    "profiles": (profiles, "bring all profiles of a configuration together, for one engine"),
    "exits": (early, "bring a network with its early exits to a board, in parts"),
    "board": (board, "serve a virtual board on this machine, for clients of pynq"),
    "bench": (measured, "measure the driver and the virtual boards"),
}


def _add_verb(verbs: Any, name: str) -> argparse.ArgumentParser:
    summary = VERBS[name][1]
    verb: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=f"{summary.capitalize()}."
    )
    verb.add_argument("--config", required=True, metavar="NAME", help="in configs/, or a .toml")
    verb.add_argument("--out", type=Path, help="folder of the build's files (build/NAME)")
    verb.add_argument(
        "--check", action="store_true", help="refuse what is wrong before a build is made, and stop"
    )
    return verb


def main() -> None:
    """Run one verb."""
    parser, verbs = stage_parser("deploy", "Bring a checked build to a board, or to a virtual one.")
    leaving = _add_verb(verbs, "exits")
    leaving.add_argument(
        "--threshold",
        type=float,
        help="softmax probability at which images leave (the one chosen on validation images)",
    )
    for verb in (_add_verb(verbs, "overlay"), _add_verb(verbs, "profiles"), leaving):
        verb.add_argument("--bit", type=Path, help="a bitstream to pack, its .hwh beside it")
        verb.add_argument("--clock", type=float, metavar="MHZ", help="at which its timing closed")
    served, scripts = _add_verb(verbs, "board"), _add_verb(verbs, "vivado")
    for verb in (served, scripts):
        verb.add_argument("--board", default="PYNQ-Z2", help=f"{', '.join(BOARDS)} (PYNQ-Z2)")
    served.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    served.add_argument("--anyone", action="store_true", help="let --host be any address")
    _add_verb(verbs, "bench")
    sent = _add_verb(verbs, "push")
    sent.add_argument("--to", required=True, metavar="USER@HOST", help="the board")
    sent.add_argument("--dry-run", action="store_true", help="print the commands, run none")
    options = parser.parse_args()
    if options.verb in VERBS:
        VERBS[options.verb][0](options, open_build(options))
    else:
        run_verb(options.verb, open_stage(options))


if __name__ == "__main__":
    sys.exit(guard(main))
