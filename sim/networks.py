# SPDX-License-Identifier: Apache-2.0
"""Networks of the library, whole, from PyTorch to RTL: every rung exact, one table of all.

    python -m sim.networks                                narrow ones
    python -m sim.networks resnet18:1:224 --out build/networks
    python -m sim.networks resnet50:1:224 --engine v_words=576

NAME:WIDTH:EDGE -> Brevitas in float64 = integer interpreter = compiled C++ = RTL, on every map
that a layer writes. Weights are untrained, 2 of 8 non-zero (--keep, --first-keep), of 8 bits: what
is shown is that and how fast a network runs, not what it knows. Raises MismatchError at the first
difference.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from codegen.check import check_graph
from codegen.emit import emit_engine
from codegen.fuse import fuse, written_maps
from codegen.golden import Golden
from codegen.interpret import interpret
from codegen.lower import rehearsed_graph
from codegen.schedule import Schedule, schedule
from openhls.project import compile_design
from quant.models.library import smallest_edge
from sim import csim, rtl
from sim.report import direct_macs
from winnow.artefact import save_arrays
from winnow.cli import Parser, guard
from winnow.compare import require_equal
from winnow.config import Config, DataConfig, ModelConfig, PruneConfig, QuantizeConfig, TargetConfig
from winnow.engine import EngineConfig
from winnow.errors import ConfigError, shown
from winnow.flow import Build
from winnow.model_config import CHAIN, MODELS
from winnow.schema import from_table
from winnow.srbs import SUB_ROW

STALL = 30  # percent of the cycles of every AXI channel, in a second run on the RTL
SHORT = 2_000_000  # modelled cycles: longer networks run without stalls only, on one image
IMAGES, CLASSES = 40, 10
DATA = "images.npz"
LIBRARY = tuple(name for name in MODELS if name != CHAIN)
WIDEST, LARGEST = 16, 1024  # what the library takes; a network may take less
STAGES = ("PyTorch", "interpreter", "schedule", "C++", "RTL")
NARROW = (
    "vgg16_bn:0.125:32",
    "vgg_nagadomi_bn:0.125:32",
    "resnet8:0.5:32",
    "resnet20:0.5:32",
    "resnet18:0.125:32",
    "resnet18:0.125:72",
    "resnet34:0.125:72",
    "resnet50:0.125:72",
    "mobilenet_v2_relu:0.25:32",
)


@dataclass(frozen=True)
class Keeps:
    """Non-zeros of 8 weights: of the first layer, which 0 leaves as it is, and of the others."""

    others: int = 2
    first: int = 0

    def __post_init__(self) -> None:
        for name, keep, least in (("keep", self.others, 1), ("first-keep", self.first, 0)):
            if not least <= keep <= SUB_ROW:
                raise ConfigError(f"{name} {keep}: must be {least}..{SUB_ROW}")


KEEPS = Keeps()


@dataclass(frozen=True)
class Wanted:
    """A network of the library: its name, the width of its layers, the edge of its images."""

    name: str
    width: float
    edge: int

    @classmethod
    def of(cls, text: str) -> Wanted:
        """Parse NAME:WIDTH:EDGE; WIDTH is 1 and EDGE 32 where they are left out."""
        name, *rest = text.split(":")
        try:
            width, edge = (*rest, *("1", "32")[len(rest) :])
            wanted = cls(name, float(width), int(edge))
        except ValueError as error:
            raise ConfigError(
                f"network {shown(text)}: must be NAME:WIDTH:EDGE such as resnet18:0.125:72"
            ) from error
        if name not in LIBRARY:
            raise ConfigError(f"network {shown(text)}: NAME must be one of {', '.join(LIBRARY)}")
        if not (0 < wanted.width <= WIDEST and 0 < wanted.edge <= LARGEST):
            raise ConfigError(
                f"network {shown(text)}: WIDTH must be above 0 and at most {WIDEST}, EDGE 1.."
                f"{LARGEST}"
            )
        if wanted.edge < (least := smallest_edge(name)):
            raise ConfigError(f"network {shown(text)}: EDGE of {name} must be at least {least}")
        return wanted

    def __str__(self) -> str:
        return f"{self.name}:{self.width:g}:{self.edge}"

    def config(self, folder: Path, engine: EngineConfig, keeps: Keeps = KEEPS) -> Config:
        """Return the configuration of a build on random images, which are written to a folder."""
        rng = np.random.default_rng(self.edge)
        images = rng.integers(0, 256, (IMAGES, 3, self.edge, self.edge), dtype=np.uint8)
        save_arrays(folder / DATA, {"images": images, "labels": np.arange(IMAGES) % CLASSES})
        return Config(
            data=DataConfig(source="npz", path=DATA, base=folder),
            model=ModelConfig(name=self.name, width=self.width),
            prune=PruneConfig(keep=keeps.others, first_keep=keeps.first),
            engine=engine,
            quantize=QuantizeConfig(weight_bits=(8,)),
        )


@dataclass
class NetworkRun:
    """One row of the table.

    Members:
        layers, macs: of the engine; multiply-accumulates of an image, as a dense engine has them.
        modelled, measured, stalled: cycles of an image; 0 where it was not run.
        seconds: of every stage, for all images of it.
    """

    wanted: Wanted
    layers: int = 0
    macs: int = 0
    modelled: int = 0
    measured: int = 0
    stalled: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


class Engines:
    """The compiled C++ and the Verilated RTL of an engine, made when first asked for."""

    def __init__(self, out: Path, config: EngineConfig) -> None:
        self.out, self.config = out, config
        self._cpp: csim.Engine | None = None
        self._harness: rtl.Harness | None = None

    @property
    def _project(self) -> Path:
        project = self.out / "hls"
        emit_engine(project, self.config, TargetConfig())
        return project

    @property
    def cpp(self) -> csim.Engine:
        if self._cpp is None:
            self._cpp = csim.build(self._project, self.out.parent / ".cache" / "csim")
        return self._cpp

    @property
    def harness(self) -> rtl.Harness:
        if self._harness is None:
            project, cache = self._project, self.out.parent / ".cache"
            top, folder = project / "src" / "top.cpp", self.out / "rtl"
            compile_design(top, [project / "include"], rtl.TOP, folder, cache / "openhls")
            self._harness = rtl.build(folder, self.config, cache / "rtl")
        return self._harness


@contextmanager
def _timed(run: NetworkRun, stage: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    run.seconds[stage] = time.monotonic() - started


def run_network(wanted: Wanted, engines: Engines, keeps: Keeps = KEEPS) -> NetworkRun:
    """Take a network through every rung; MismatchError names the first map that differs."""
    run = NetworkRun(wanted)
    with _timed(run, "PyTorch"):
        config = wanted.config(engines.out, engines.config, keeps)
        graph, golden = rehearsed_graph(Build(config, engines.out))
        check_graph(graph)
    with _timed(run, "interpreter"):
        maps = interpret(graph, golden.images)
        require_equal(golden.layers, written_maps(fuse(graph), maps))
    with _timed(run, "schedule"):
        plan = schedule(graph, engines.config)
    run.layers, run.modelled = len(plan.layers), plan.total_cycles
    run.macs = sum(map(direct_macs, plan.layers))
    _run_engine(run, plan, golden, engines)
    return run


def _run_engine(run: NetworkRun, plan: Schedule, golden: Golden, engines: Engines) -> None:
    """Run the C++ on all images of a short network, else and on the RTL on the first one."""
    cpp, harness = engines.cpp, engines.harness  # compiled before the clock starts
    first, is_short = golden.first(1), plan.total_cycles < SHORT
    chosen = golden if is_short else first
    with _timed(run, "C++"):
        require_equal(chosen.layers, csim.run(cpp, plan, chosen.images))
    with _timed(run, "RTL"):
        found = rtl.run(harness, plan, first.images)
        require_equal(first.layers, found.maps)
    run.measured = found.cycles[0]
    if is_short:
        stalled = rtl.run(harness, plan, first.images, stall=STALL, seed=1)
        require_equal(first.layers, stalled.maps)
        run.stalled = stalled.cycles[0]


def format_table(runs: Sequence[NetworkRun]) -> str:
    """Return the table of all networks."""
    width = max(map(len, ["network", *(str(run.wanted) for run in runs)]))
    heads = ("layers", "MACs", "modelled", "RTL", "off by", f"{STALL} % stalls")
    lines = [
        f"{'network':<{width}}" + "".join(f"{head:>13}" for head in (*heads, *STAGES)),
    ]
    for run in runs:
        off = 100 * (run.modelled - run.measured) / run.measured
        counts = f"{run.layers:>13}{run.macs:>13}{run.modelled:>13}{run.measured:>13}{off:>11.1f} %"
        stalled = f"{run.stalled or '-':>13}"
        times = "".join(f"{run.seconds[stage]:>11.1f} s" for stage in STAGES)
        lines.append(f"{run.wanted!s:<{width}}{counts}{stalled}{times}")
    return "\n".join(lines)


def engine_of(settings: Sequence[str]) -> EngineConfig:
    """Return the default engine with other numbers: KEY=NUMBER, a key of [engine] each."""
    pairs = [text.partition("=") for text in settings]
    for text, (_, _, number) in zip(settings, pairs, strict=True):
        if not (number.isascii() and number.isdigit()):
            raise ConfigError(f"engine {shown(text)}: must be KEY=NUMBER such as v_words=576")
    return from_table(EngineConfig, {key: int(number) for key, _, number in pairs}, "engine")


def main() -> None:
    """Run the networks of the command line and print the table."""
    parser = Parser(prog="python -m sim.networks", description=__doc__.split("\n")[0])
    parser.add_argument("networks", nargs="*", help="NAME:WIDTH:EDGE (default: narrow ones of all)")
    parser.add_argument("--out", type=Path, default=Path("build/networks"))
    parser.add_argument("--keep", type=int, default=2, help="non-zeros of 8 weights, 1..8 (2)")
    parser.add_argument(
        "--first-keep",
        type=int,
        default=0,
        help="of the first layer, unrolled, 0..8 (0: it is not)",
    )
    parser.add_argument(
        "--engine", nargs="*", default=[], metavar="KEY=NUMBER", help="such as v_words=576"
    )
    options = parser.parse_args()
    engine = engine_of(options.engine)
    keeps = Keeps(options.keep, options.first_keep)
    wanted = [Wanted.of(text) for text in options.networks or NARROW]
    options.out.mkdir(parents=True, exist_ok=True)
    engines, runs = Engines(options.out, engine), []
    for each in wanted:
        runs.append(run_network(each, engines, keeps))
        print(f"{each}: Brevitas (float64) = interpreter = C++ = RTL on every map", flush=True)
    print(format_table(runs))


if __name__ == "__main__":
    sys.exit(guard(main))
