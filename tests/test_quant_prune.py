# SPDX-License-Identifier: Apache-2.0
"""SRBS pruning: the pattern is exact, compensation helps, the schedule ends at the target."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quant.layers.winograd_layer import Dense, TapLayer, WinogradConv2d
from quant.prune import srbs
from quant.prune.gradual import last_step, step_at
from quant.prune.srbs import Hessian, blocks, fewer, prune_layer, saliencies, thin
from quant.prune.target import keep_at
from winnow.srbs import max_keep, srbs_mask, to_sub_rows


def smooth_input(channels: int, seed: int, *, num: int = 8) -> Tensor:
    """Correlated, non-negative maps [num, c, 12, 12], as ReLU layers give."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(num, channels, 14, 14, generator=generator)
    mixed = torch.einsum(
        "nchw,dc->ndhw", noise, torch.randn(channels, channels, generator=generator)
    )
    return F.relu(F.avg_pool2d(mixed, 3, stride=1))


def layer_of(channels: int, m: int, seed: int) -> WinogradConv2d:
    generator = torch.Generator().manual_seed(seed)
    layer = WinogradConv2d(channels, 6, m)
    layer.load_spatial(torch.randn(6, channels, 3, 3, generator=generator))
    return layer


def dense_of(channels: int, edge: int, seed: int) -> Dense:
    generator = torch.Generator().manual_seed(seed)
    layer = Dense(channels * edge**2, 6, channels)
    torch.nn.init.normal_(layer.weight, generator=generator)
    return layer


def whole_form(layer: TapLayer, x: Tensor, sub_row: int = 8) -> Tensor:
    """The form of all weights of an output channel."""
    form = Hessian(layer, x, sub_row)
    (block,) = form.blocks
    return form.of(block)


def by_channel(layer: TapLayer, channels: int) -> np.ndarray:
    """The weights [oc, c, positions]."""
    return layer.u.detach().numpy().reshape(6, channels, -1)


@pytest.mark.parametrize("kind", ["F(2,3)", "F(4,3)", "dense"])
@pytest.mark.parametrize("channels", [8, 16, 13])
def test_compensation_beats_plain_magnitude(kind: str, channels: int) -> None:
    for keep in (2, 4, 6):
        layer: TapLayer
        if kind == "dense":
            layer, x = (
                dense_of(channels, 4, keep),
                smooth_input(channels, keep, num=256)[..., :4, :4],
            )
        else:
            layer, x = layer_of(channels, int(kind[2]), keep), smooth_input(channels, keep)
        want, u = layer(x), layer.u.detach()
        prune_layer(layer, x, keep)
        ours = float((layer(x) - want).detach().square().mean())
        score = u.abs().numpy().reshape(6, channels, -1)
        layer.mask.copy_(torch.from_numpy(srbs_mask(score, keep)).view_as(layer.mask))
        layer.set_u(u)
        plain = float((layer(x) - want).detach().square().mean())
        assert ours < 0.8 * plain, (keep, ours, plain)


@pytest.mark.parametrize("channels", [8, 13, 24])
@pytest.mark.parametrize("keep", [1, 2, 5, 8])
def test_every_sub_row_keeps_exactly_its_number(channels: int, keep: int) -> None:
    layer, x = layer_of(channels, 2, keep), smooth_input(channels, keep)
    prune_layer(layer, x, keep)
    u = layer.u.detach().numpy()
    held = (to_sub_rows(u) != 0).sum(axis=2)  # oc, sub_rows, taps
    last = channels % 8 or 8
    assert (held[:, :-1] == keep).all()
    assert (held[:, -1] == min(keep, last)).all()
    assert max_keep(u) == keep or channels < keep


@pytest.mark.parametrize("channels", [16, 24, 40])
def test_sub_rows_of_16_and_a_keep_per_tap(channels: int) -> None:
    layer, x = layer_of(channels, 2, 0), smooth_input(channels, 0)
    keeps = np.arange(16) % 5 + 2
    prune_layer(layer, x, keeps, 16)
    held = (to_sub_rows(layer.u.detach().numpy(), 16) != 0).sum(axis=2)  # oc, sub_rows, taps
    assert (held == keeps).all()


def test_form_of_sub_rows_of_16_is_the_output_error() -> None:
    layer, x = layer_of(16, 2, 0), smooth_input(16, 0)
    form = whole_form(layer, x, 16)
    error = float(layer(x).detach().double().square().sum())
    rows = layer.u.detach().double().flatten(1)
    predicted = float(torch.einsum("oi,ij,oj->", rows, form, rows)) * 8 * 6 * 6
    assert predicted == pytest.approx(error, rel=1e-2)  # the damping is the difference


@pytest.mark.parametrize("channels", [8, 13])
@pytest.mark.parametrize("edge", [1, 3, 7])  # 49 pixels take two solves
def test_dense_sub_rows_are_channels_at_one_pixel(channels: int, edge: int) -> None:
    layer, x = dense_of(channels, edge, 0), smooth_input(channels, 0)[..., :edge, :edge]
    prune_layer(layer, x, 2)
    held = (to_sub_rows(by_channel(layer, channels)) != 0).sum(axis=2)  # oc, sub_rows, pixels
    assert held.shape == (6, -(-channels // 8), edge**2)
    assert (held == 2).all()


def test_every_pixel_may_keep_its_own_number() -> None:
    layer, x = dense_of(16, 7, 0), smooth_input(16, 0)[..., :7, :7]
    keeps = np.arange(49) % 7 + 1  # 49 pixels take two solves
    prune_layer(layer, x, keeps)
    held = (to_sub_rows(by_channel(layer, 16)) != 0).sum(axis=2)  # oc, sub_rows, pixels
    assert (held == keeps).all()


def test_dense_form_is_the_output_error_of_eight_channels() -> None:
    layer, x = dense_of(8, 4, 0), smooth_input(8, 0, num=400)[..., :4, :4]
    form = whole_form(layer, x)
    change = layer.u.detach().double().flatten(1)  # (c, pixel), the pixel fastest
    error = float(layer(x).detach().double().square().sum())
    predicted = float(torch.einsum("oi,ij,oj->", change, form, change)) * len(x)
    assert predicted == pytest.approx(error, rel=1e-2)  # the damping is the difference


def test_dense_compensation_is_the_least_squares_fit() -> None:
    layer, x = dense_of(8, 4, 0), smooth_input(8, 0, num=400)[..., :4, :4]
    want = layer(x).detach().double().numpy()
    prune_layer(layer, x, 2)
    ours = layer(x).detach().double().numpy()
    inputs = x.flatten(1).double().numpy()
    for output, mask in enumerate(layer.mask[:, :, 0].numpy().astype(bool)):
        best, *_ = np.linalg.lstsq(inputs[:, mask], want[:, output])
        least = np.square(inputs[:, mask] @ best - want[:, output]).mean()
        assert np.square(ours[:, output] - want[:, output]).mean() <= 1.02 * least


def test_quadratic_form_is_the_output_error_of_a_sub_row() -> None:
    layer, x = layer_of(8, 2, 0), smooth_input(8, 0)
    form = whole_form(layer, x)
    generator = torch.Generator().manual_seed(1)
    change = torch.randn(6, 8, 16, generator=generator)
    layer.bias.data.zero_()
    layer.set_u(change)
    error = float(layer(x).detach().double().square().sum())
    rows = change.double().flatten(1)
    tiles = 8 * 6 * 6
    predicted = float(torch.einsum("oi,ij,oj->", rows, form, rows)) * tiles
    assert predicted == pytest.approx(error, rel=1e-2)  # the damping is the difference


def test_few_samples_split_the_taps_of_a_layer() -> None:
    """Two small images give fewer outputs than a sub-row has weights: blocks hold some taps."""
    torch.manual_seed(0)
    layer, x = WinogradConv2d(16, 4, 2), torch.rand(2, 16, 6, 10)
    layer.load_spatial(torch.randn(4, 16, 3, 3))
    block = Hessian(layer, x).blocks[1]
    assert 0 < len(range(16)[block.positions]) < 16
    prune_layer(layer, x, 2)
    assert float((layer.mask != 0).float().mean()) == 0.25
    form = Hessian(layer, x).of(block)
    v = layer.input_transform(x)[block.positions, block.channels].double()  # taps, c, p
    change = torch.randn(v.shape[1], v.shape[0], dtype=torch.float64)
    sums = torch.einsum("ctp,ct->tp", v.transpose(0, 1), change)
    error = (layer.output_kron.double()[:, block.positions] @ sums).square().sum() / v.shape[2]
    found = change.flatten() @ form @ change.flatten()
    assert float(found / error) == pytest.approx(1, rel=1e-2)


def test_compensation_is_the_minimum_of_the_form() -> None:
    layer, x = layer_of(16, 2, 3), smooth_input(16, 3)
    u, form = layer.u.detach().double(), whole_form(layer, x)
    best, mask = thin(u, form, np.full(16, 3))
    slope = ((best - u).flatten(1) @ form) * mask.flatten(1)
    assert float(slope.abs().max()) < 1e-8
    assert float((best * (1 - mask)).abs().max()) == 0


def test_saliency_is_the_error_of_removing_a_weight() -> None:
    """Numpy's least squares without the weight, in a sub-row where three others are gone too."""
    layer, x = layer_of(8, 2, 5), smooth_input(8, 5)
    u, form = layer.u.detach().double(), whole_form(layer, x)
    mask = torch.ones_like(u)
    mask[:, :3, 5] = 0
    factor = np.linalg.cholesky(form.numpy()).T  # |factor dU|^2 = dU^T H dU
    wanted = factor @ u[0].flatten().numpy()
    for channel, tap in ((0, 0), (4, 5), (7, 15)):
        fits, lost = [], []
        for removed in (False, True):
            kept = mask[0].bool().clone()
            kept[channel, tap] &= not removed
            columns = kept.flatten().numpy()
            fit = np.zeros(128)
            fit[columns] = np.linalg.lstsq(factor[:, columns], wanted)[0]
            fits.append(fit)
            lost.append(np.square(factor @ fit - wanted).sum())
        found = saliencies(torch.from_numpy(fits[0]).view(1, 8, 16), mask[:1], form)
        assert float(found[0, channel, tap]) == pytest.approx(lost[1] - lost[0], rel=1e-5)
        assert float(found[0, 0, 5]) == -1


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("keep", [1, 2])
def test_wide_blocks_leave_less_error(m: int, keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = []
    for unknowns in (8 * (m + 2) ** 2, 32 * (m + 2) ** 2):
        monkeypatch.setattr(srbs, "UNKNOWNS", unknowns)
        layer, x = layer_of(32, m, 1), smooth_input(32, 1, num=32)
        want = layer(x).detach()
        prune_layer(layer, x, keep)
        errors.append(float((layer(x) - want).detach().square().mean()))
    assert errors[1] < 0.9 * errors[0], errors


@pytest.mark.parametrize("channels", [3, 8, 64, 100])
@pytest.mark.parametrize("positions", [1, 16, 36, 49, 4000])
@pytest.mark.parametrize("limit", [1, 128, 1152])
def test_blocks_cut_weights_into_whole_sub_rows(channels: int, positions: int, limit: int) -> None:
    hits = np.zeros((channels, positions), dtype=int)
    for block in blocks(channels, positions, 8, limit):
        hits[block.channels, block.positions] += 1
        assert block.channels.start % 8 == 0
        assert block.channels.stop % 8 == 0 or block.channels.stop == channels
        wide = -(-(block.channels.stop - block.channels.start) // 8) * 8
        assert wide * (block.positions.stop - block.positions.start) <= max(8, limit)
    assert (hits == 1).all()


def test_a_quarter_of_a_sub_row_goes_at_once() -> None:
    path, kept = [], np.array([16, 16])
    while (kept > [1, 9]).any():
        kept = fewer(kept, np.array([1, 9]))
        path.append(kept.tolist())
    assert path == [[12, 12], [9, 9], [7, 9], [6, 9], [5, 9], [4, 9], [3, 9], [2, 9], [1, 9]]


def schedule(keep: int, steps: int, dense: int = 8) -> list[int]:
    return [int(keep_at(np.array([keep]), step, steps, dense)[0]) for step in range(steps)]


def test_schedule_goes_down_to_the_target() -> None:
    assert schedule(2, 6) == [7, 6, 5, 4, 3, 2]
    assert schedule(2, 3) == [6, 4, 2]
    assert schedule(1, 1) == [1]
    assert schedule(8, 2) == [8, 8]
    assert schedule(4, 3, dense=16) == [12, 8, 4]


def test_every_position_has_its_own_schedule() -> None:
    keeps = np.array([1, 4, 8])
    assert keep_at(keeps, 0, 2, 8).tolist() == [4, 6, 8]
    assert keep_at(keeps, 1, 2, 8).tolist() == [1, 4, 8]


@pytest.mark.parametrize(("epochs", "steps"), [(18, 6), (5, 2), (2, 1), (1, 1), (12, 6)])
def test_all_steps_happen_in_the_first_half(epochs: int, steps: int) -> None:
    due = [step for epoch in range(epochs) if (step := step_at(epoch, epochs, steps)) is not None]
    assert due == sorted(due)
    assert due[-1] == steps - 1
    assert len(due) == steps
    assert all(step_at(epoch, epochs, steps) is None for epoch in range(-(-epochs // 2), epochs))


def test_too_few_epochs_skip_steps_but_reach_the_last() -> None:
    due = [step_at(epoch, 4, 6) for epoch in range(4)]
    assert due == [2, 5, None, None]
    assert [last_step(epoch, 4, 6) for epoch in range(4)] == [2, 5, 5, 5]


def test_last_step_stays_between_two_steps() -> None:
    assert [last_step(epoch, 8, 2) for epoch in range(8)] == [0, 0, 1, 1, 1, 1, 1, 1]
