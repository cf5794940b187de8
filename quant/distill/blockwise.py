# SPDX-License-Identifier: Apache-2.0
"""Block-wise distillation: a student learns its teacher's maps one block at a time.

`segments` cuts a network where its blocks end. A block of the student is trained on a map and shall
give the teacher's map behind the same block: of the same height and width, and of the same channels
behind a 1x1 convolution, the *regressor* of FitNets (Romero et al., ICLR 2015), which is dropped
afterwards. Either the teacher feeds the block, so that blocks are independent (Ahmed et al. 2021),
or the student's own blocks before it, already trained, so that each learns to make up for the
errors before it (progressive).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from quant.data import Split, to_input
from quant.network.graph import INPUT, NetworkGraph
from quant.network.network import Network
from quant.network.structure import block_ends
from quant.train.resume import Resume
from quant.train.training import Plan, fit

MAX_ROWS = 20_000  # pixels that the start of a regressor is solved from
RIDGE = 1e-6  # of the mean energy of a channel: for channels that depend on each other


def segments(net: Network) -> list[Network]:
    """Return the parts of a network between its blocks' ends, in order; they share its layers.

    The last one ends with the logits: there is one more than there are blocks.
    """
    graph = net.graph.ending_at(net.graph.output)
    parts, entry, done = [], INPUT, set[str]()
    for end in (*block_ends(graph), graph.output):
        nodes = [
            replace(node, inputs=tuple(INPUT if i == entry else i for i in node.inputs))
            for node in graph.needed([end])
            if node.name not in done
        ]
        done.update(node.name for node in nodes)
        parts.append(net.part(NetworkGraph.of(graph.shape_of(entry), nodes, end)))
        entry = end
    return parts


@torch.no_grad()
def least_squares(features: Tensor, wanted: Tensor) -> nn.Conv2d:
    """Return the 1x1 convolution whose output for `features` is nearest to `wanted`.

    Both are [n, c, h, w] of the same size but for the channels.
    """
    rows, right = (_rows(x) for x in (features, wanted))
    rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
    energy = rows.t() @ rows
    ridge = RIDGE * energy.diagonal().mean() * torch.eye(len(energy)).to(energy)
    solution = torch.linalg.solve(energy + ridge, rows.t() @ right)  # c + 1, wanted channels
    layer = nn.Conv2d(features.shape[1], wanted.shape[1], 1).to(features)
    layer.weight.copy_(solution[:-1].t()[:, :, None, None])
    layer.bias.copy_(solution[-1])
    return layer


def _rows(x: Tensor) -> Tensor:
    """Return pixels [p, c] of a map in float64, evenly chosen."""
    rows = x.detach().transpose(0, 1).flatten(1).t()
    step = -(-len(rows) // MAX_ROWS) | 1  # odd: an even one would see a few columns only
    return rows[::step].double()


def relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared error over the variance of the teacher's map: 1 knows nothing."""
    return (student - teacher).square().mean() / teacher.var().clamp(min=1e-12)


@dataclass(frozen=True)
class BlockTraining:
    """A block in training.

    Members:
        teacher: teacher's segments up to and with this one.
        before: what makes the block's input: segments of the teacher or of the student.
        segment, regressor: what is trained; the regressor is the identity for equal channels.
    """

    teacher: Sequence[nn.Module]
    before: Sequence[nn.Module]
    segment: nn.Module
    regressor: nn.Module

    def __call__(self, x: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002 (labels do not count)
        with torch.no_grad():
            wanted, feature = run(self.teacher, x), run(self.before, x)
        return relative_error(self.regressor(self.segment(feature)), wanted)

    @torch.no_grad()
    def error(self, x: Tensor) -> float:
        """Return the relative error for inputs x in evaluation mode."""
        for module in (self.segment, self.regressor):
            module.eval()
        return float(self(x, x))


def run(parts: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Return what segments in a row make of x."""
    for part in parts:
        x = part(x)
    return x


@torch.no_grad()
def settle_statistics(segment: nn.Module, entry: Tensor) -> None:
    """Set the running statistics of a segment's BatchNorms to those for inputs `entry`.

    Channels that were removed, or another network before it, have changed them: a regressor solved
    with the old ones would not fit what training sees.
    """
    norms = [m for m in segment.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    segment(entry)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum


def make_block(
    teacher: Sequence[nn.Module], before: Sequence[nn.Module], x: Tensor
) -> BlockTraining:
    """Return the block of segment `before[-1]`, fed by the rest of `before`, for sample inputs x.

    All are put into evaluation mode; the segment's BatchNorms take the statistics of the samples,
    and a regressor, if needed, starts at the least squares' solution.
    """
    for part in (*teacher, *before):
        part.eval()
    *feeding, segment = before
    with torch.no_grad():
        wanted, entry = run(teacher, x), run(feeding, x)
        settle_statistics(segment, entry)
        features = segment(entry)
    same = wanted.shape == features.shape
    regressor = nn.Identity() if same else least_squares(features, wanted)
    return BlockTraining(teacher, feeding, segment, regressor)


def train_block(block: BlockTraining, split: Split, plan: Plan, resume: Resume) -> None:
    """Train a block and its regressor in place; all else stays as it is, statistics included."""
    # Neither classifies, so there is no accuracy to validate.
    silent = replace(plan, validate_every=0, logs=None)
    fit(nn.ModuleList([block.segment, block.regressor]), split, block, silent, resume=resume)


def train_blocks(
    student: Network,
    teacher: Network,
    split: Split,
    plan: Plan,
    *,
    resume: Resume,
    samples: int,
) -> list[float]:
    """Train the blocks of `student` in order, each behind its own trained ones before it.

    The classifier is the last block. `samples` training images start the regressors. Returns every
    block's relative error on validation images.
    """
    ours, theirs = segments(student), segments(teacher)
    x, held = (
        to_input(part.images[:samples]).to(plan.device) for part in (split.train, split.validation)
    )
    errors = []
    for i in range(len(ours)):
        block = make_block(theirs[: i + 1], ours[: i + 1], x)
        train_block(block, split, plan, resume.part(f"block{i + 1}"))
        errors.append(block.error(held))
    return errors
