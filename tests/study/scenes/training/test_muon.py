"""Muon: directions are orthogonal, small quadratics are solved, states resume."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.study.scenes.training.muon import Muon, orthogonal


@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 2**31 - 1))
def test_singular_values_come_near_one(rows, columns, seed):
    torch.manual_seed(seed)
    matrices = torch.randn(3, rows, columns)
    moved = torch.linalg.svdvals(orthogonal(matrices, steps=12))
    assert moved.max() < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    exact = left @ right
    cosine = (orthogonal(matrices, steps=12) * exact).sum((1, 2)) / exact.square().sum((1, 2))
    assert (cosine > 0.6).all()


def test_a_matrix_is_treated_alike_in_any_company():
    torch.manual_seed(0)
    matrices = torch.randn(4, 5, 9)
    torch.testing.assert_close(orthogonal(matrices)[2:3], orthogonal(matrices[2:3]), atol=1e-5, rtol=0)
    torch.testing.assert_close(orthogonal(matrices.mT), orthogonal(matrices).mT, atol=1e-5, rtol=0)


def test_it_descends_and_decays():
    torch.manual_seed(0)
    wanted, weight = torch.randn(6, 4), torch.nn.Parameter(torch.zeros(6, 4))
    optimizer = Muon([weight], lr=0.05, weight_decay=0.0)
    before = (weight - wanted).square().sum().item()
    for step in range(100):  # updates have a fixed size, so the rate has to fall
        optimizer.param_groups[0]["lr"] = 0.3 * (1 - step / 100)
        optimizer.zero_grad()
        (weight - wanted).square().sum().backward()
        optimizer.step()
    assert (weight - wanted).square().sum().item() < 0.05 * before
    idle = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([idle], lr=0.1, weight_decay=0.5)
    idle.grad = torch.zeros(2, 2)
    optimizer.step()
    torch.testing.assert_close(idle.detach(), torch.full((2, 2), 0.95))
