# SPDX-License-Identifier: Apache-2.0
"""Channels removed without training: least squares makes the layers that read them give the same.

Which channels of a map can go is a question to its readers. A reader's output is linear in what it
reads, so the kernel for any channels that stay, closest to the original network's output over the
calibration images, is the solution of normal equations (He et al., ICCV 2017). Channels go one by
one, each time the one whose absence costs least with all others at their optimum. With V the
optimum, A the matrix of the equations and S the rows of a channel, that is

    tr(V_S^T ((A^-1)_SS)^-1 V_S)

Groups follow each other as they run: a reader sees what the narrowed network before it gives, so
that it makes up for the errors of others too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.distill import distillation
from quant.network.channels import ChannelGroup, remove_channels
from quant.network.graph import BatchNorm, Conv, Node
from quant.network.network import Network
from quant.network.structure import channel_groups
from quant.prune_channels.saliency import counts_within, saliencies
from quant.prune_channels.task import Narrowed, Task
from quant.train.training import fit
from winnow.config import LEAST_SQUARES
from winnow.errors import ConfigError
from winnow.progress import steps

OUTPUTS = 4  # of a reader, that the calibration images shall give for each unknown
SINGULAR = 1e-10  # share of a value that the ones before it do not explain, below which none is new
RIDGE = 1e-4  # of the diagonal, where the equations are singular
VALUES = 2**24  # of the unfolded maps at once

# Of every reader, relative to the variance of the original's outputs: with the kernel as it was
# ("dropped"), and "refitted".
Errors = dict[str, dict[str, float]]


@dataclass(frozen=True, eq=False)
class Reader:
    """The normal equations of a layer that reads a group, summed over the calibration images.

    A column of unknowns belongs to every output channel: operands (channel, place), the place
    fastest, and at the end one that is added to all, if the layer has somewhere to put it.

    Members:
        gram: products of what is read [unknowns, unknowns]; what is added reads ones.
        cross: products of what is read with the original network's outputs [unknowns, outputs].
        weight: the unknowns as they are [unknowns, outputs].
        channels, places: of the group, and the operands of each.
        squares: squared distance of the original's outputs from their means.
        total: their squares.
    """

    gram: Tensor
    cross: Tensor
    weight: Tensor
    channels: int
    places: int
    squares: float
    total: float

    def rows(self, kept: Tensor) -> Tensor:
        """Return the unknowns of the channels `kept`, and what is added."""
        operands = (kept[:, None] * self.places + torch.arange(self.places)).flatten()
        added = torch.arange(self.channels * self.places, len(self.gram))
        return torch.cat([operands, added]).to(self.gram.device)

    def error(self, rows: Tensor, weight: Tensor) -> float:
        """Return the squared error of a weight of some rows, relative to the outputs' variance."""
        form = (weight * (self.gram[rows][:, rows] @ weight - 2 * self.cross[rows])).sum()
        return max(0.0, float(form) + self.total) / max(self.squares, 1e-30)


def solver(gram: Tensor) -> Tensor:
    """Return the Cholesky factor of a matrix, with a ridge if it is singular.

    Rows and columns are scaled first, so that a pivot is what the unknowns before do not explain.
    One that reads nothing but zeros is by itself: it stays as it is, and needs no ridge.
    """
    diagonal = gram.diagonal()
    is_dead = diagonal == 0
    scale = torch.where(is_dead, 1.0, diagonal).sqrt()
    scaled = gram / scale[:, None] / scale + torch.diag(is_dead.to(gram.dtype))
    factor, failed = torch.linalg.cholesky_ex(scaled)
    if int(failed) or float(factor.diagonal().min()) ** 2 < SINGULAR:
        factor = torch.linalg.cholesky(scaled + RIDGE * _one(gram))
    return factor * scale[:, None]


def _one(like: Tensor) -> Tensor:
    return torch.eye(len(like), dtype=like.dtype, device=like.device)


def fitted(reader: Reader, kept: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the best weight [rows, outputs] for the channels `kept`, in numbers of `dtype`.

    It is the weight as it is where that is no worse: a ridge draws to it, and rounding could lose
    what there is to gain.
    """
    rows = reader.rows(kept)
    gram, weight = reader.gram[rows][:, rows], reader.weight[rows]
    slope = gram @ weight - reader.cross[rows]
    change = -torch.cholesky_solve(slope, solver(gram))
    found = (weight + change).to(dtype).to(weight.dtype)
    change = found - weight
    gain = (change * (gram @ change + 2 * slope)).sum()
    return found if float(gain) < 0 else weight


def least_missed(readers: Sequence[Reader], count: int) -> Tensor:
    """Return the `count` channels that stay, ascending int64, when others leave one by one."""
    states, channels = [], readers[0].channels
    for reader in readers:
        factor = solver(reader.gram)
        best = torch.cholesky_solve(reader.cross, factor)
        states.append((torch.cholesky_inverse(factor), best, reader.places, reader.squares))
    gone = torch.zeros(channels, dtype=torch.bool)
    for _ in range(channels - count):
        costs = sum(_costs(*state, channels, gone) for state in states)
        weakest = int(torch.where(gone, torch.inf, costs).argmin())
        for inverse, best, places, _ in states:
            _remove(inverse, best, slice(weakest * places, (weakest + 1) * places))
        gone[weakest] = True
    return (~gone).nonzero().flatten()


def _costs(
    inverse: Tensor, best: Tensor, places: int, squares: float, channels: int, gone: Tensor
) -> Tensor:
    """Return what the absence of each channel costs a reader, relative to its outputs' variance."""
    size = channels * places
    blocks = inverse[:size, :size].view(channels, places, channels, places)
    own = blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1).clone()
    own[gone] = _one(own[0])
    part = best[:size].view(channels, places, -1)
    return (part * torch.linalg.solve(own, part)).sum((1, 2)).cpu() / max(squares, 1e-30)


def _remove(inverse: Tensor, best: Tensor, rows: slice) -> None:
    """Take rows out of the equations: their inverse and solution, in place, are 0 there."""
    own = inverse[rows, rows].clone()
    best -= inverse[:, rows] @ torch.linalg.solve(own, best[rows].clone())
    inverse -= inverse[:, rows].clone() @ torch.linalg.solve(own, inverse[rows].clone())


def columns(node: Node, x: Tensor) -> Tensor:
    """Return what a layer multiplies for inputs x [n, ...], [operands, outputs] in float64."""
    if isinstance(node, Conv):
        x = F.unfold(x.double(), node.kernel, node.dilation, node.padding, node.stride)
        return x.transpose(0, 1).flatten(1)
    return x.double().t()


def outputs(y: Tensor) -> Tensor:
    """Return a layer's outputs [n, channels, ...] as [channels, outputs] in float64."""
    return y.double().transpose(0, 1).flatten(1)


def offset_norm(net: Network, name: str) -> nn.Module | None:
    """Return the BatchNorm that alone reads a layer: its mean can take what is to be added."""
    readers = net.graph.readers()[name]
    is_norm = len(readers) == 1 and isinstance(readers[0], BatchNorm)
    return net.get_submodule(readers[0].name) if is_norm else None


@torch.no_grad()
def observe(task: Task, student: Network, group: ChannelGroup, name: str) -> Reader:
    """Return the normal equations of a layer of `student` for the outputs it has in `task.net`."""
    node, module = student.graph.by_name[name], student.get_submodule(name)
    weight = module.weight.detach().double().flatten(1).t()
    norm = offset_norm(student, name)
    if module.bias is not None:
        weight = torch.cat([weight, module.bias.detach().double()[None]])
    elif norm is not None:
        weight = torch.cat([weight, torch.zeros_like(weight[:1])])
    operands = module.weight[0].numel()
    has_offset = len(weight) > operands
    gram, cross = weight.new_zeros(len(weight), len(weight)), torch.zeros_like(weight)
    sums, total, count = weight.new_zeros(weight.shape[1]), 0.0, 0
    for x, y in _maps(task, student, node):
        step = max(1, VALUES * len(x) // (operands * y[:, 0].numel()))
        for start in range(0, len(x), step):
            read = columns(node, x[start : start + step])
            if has_offset:
                read = torch.cat([read, torch.ones_like(read[:1])])
            wanted = outputs(y[start : start + step])
            gram += read @ read.t()
            cross += read @ wanted.t()
            sums, total = sums + wanted.sum(1), total + float(wanted.square().sum())
            count += wanted.shape[1]
    if not bool(gram.isfinite().all() and cross.isfinite().all()):
        raise ConfigError(
            f"prune_channels.method '{LEAST_SQUARES}': '{name}' reads or gives values that are no "
            "numbers for a training image; train with a lower train.learning_rate"
        )
    squares = total - float(sums.square().sum()) / count
    channels = group.channels(student)
    return Reader(gram, cross, weight, channels, operands // channels, squares, total)


def _maps(task: Task, student: Network, node: Node) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what a layer reads in `student` and what it gives in `task.net`, batch by batch."""
    student.eval()
    task.net.eval()
    for x in task.inputs(images_for(task, student, node)):
        yield student.run(x, [node.inputs[0]])[0], task.net.run(x, [node.name])[0]


def images_for(task: Task, net: Network, node: Node) -> int:
    """Return how many images tell a layer's unknowns: the samples, or more if these are too few."""
    unknowns = net.get_submodule(node.name).weight[0].numel() + 1
    places = node.shape[1] * node.shape[2] if isinstance(node, Conv) else 1
    return max(task.samples, -(-OUTPUTS * unknowns // places))


@torch.no_grad()
def narrow(task: Task, student: Network, group: ChannelGroup, count: int) -> tuple[Tensor, Errors]:
    """Leave a group `count` channels and refit its readers, in place.

    Returns the channels that stay, and the readers' errors.
    """
    readers = {name: observe(task, student, group, name) for name in group.consumers}
    kept = least_missed(list(readers.values()), count)
    remove_channels(student, group, kept)
    errors: Errors = {}
    for name, reader in readers.items():
        module, rows = student.get_submodule(name), reader.rows(kept)
        found = fitted(reader, kept, module.weight.dtype)
        errors[name] = {
            "dropped": reader.error(rows, reader.weight[rows]),
            "refitted": reader.error(rows, found),
        }
        operands = module.weight[0].numel()
        module.weight.copy_(found[:operands].t().reshape(module.weight.shape))
        if module.bias is not None:
            module.bias.copy_(found[operands])
        elif (norm := offset_norm(student, name)) is not None:
            norm.running_mean.sub_(found[operands])
    return kept, errors


def narrow_all(task: Task, student: Network, counts: Mapping[str, int]) -> dict[str, object]:
    """Narrow all groups to `counts`, as they run, in place.

    Returns for the record the channels that stay in groups, and the errors of all readers.
    """
    stay: dict[str, list[int]] = {}
    errors: Errors = {}
    for group in steps("narrowing groups", channel_groups(student.graph)):
        if counts[group.name] < group.channels(student):
            kept, found = narrow(task, student, group, counts[group.name])
            stay[group.name] = kept.tolist()
            errors |= found
    return {"kept": stay, "errors": errors}


def least_squares(task: Task) -> Narrowed:
    """Return a copy of the network within the budget; saliency shares it out among the groups."""
    keys = task.config.prune_channels
    student: Network = copy.deepcopy(task.net)
    loss = distillation(student, task.teacher, task.config.distill)
    found = saliencies(student, loss, task.batches())
    counts = counts_within(task.terms, found, task.limit(keys.share), keys.multiple)
    numbers = narrow_all(task, student, counts)
    joint = distillation(student, task.teacher, task.config.distill)
    history = fit(student, task.split, joint, task.plan, resume=task.resume.part("joint"))
    return Narrowed(student, history, numbers)
