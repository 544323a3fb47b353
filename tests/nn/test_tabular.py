import pytest
import torch

from medcl.errors import MedclError
from medcl.nn.fusion import Fusion
from medcl.nn.tabular import TabularEncoder


def encoder() -> TabularEncoder:
    torch.manual_seed(0)
    return TabularEncoder(categories=(3, 2), numeric=2, width=16, depth=1, heads=2)


TABLE = torch.tensor([[0.0, 1.0, 0.5, -2.0], [2.0, 0.0, torch.nan, 1.0]])


def test_a_table_with_holes_becomes_tokens_and_a_vector():
    net = encoder()
    assert net.tokens(TABLE).shape == (2, 5, 16)
    assert net(TABLE).shape == (2, 16)
    assert net(TABLE).isfinite().all()


def test_missing_and_masked_values_are_one_token_whatever_they_were():
    net = encoder()
    holes = TABLE.clone()
    holes[0, 1] = -1.0  # a category below 0 is missing
    holes[0, 3] = torch.nan
    masked = torch.zeros(2, 4, dtype=torch.bool)
    masked[0, [1, 3]] = True
    assert torch.equal(net.tokens(holes), net.tokens(TABLE, masked))
    assert not torch.equal(net.tokens(holes), net.tokens(TABLE))
    assert net.known(holes).tolist() == [[True, False, True, False], [True, True, False, True]]


def test_the_missing_token_learns_and_differs_between_columns():
    net = encoder()
    tokens = net.tokens(torch.full((1, 4), torch.nan))
    tokens.sum().backward()
    assert net.missing.grad is not None
    assert torch.pdist(tokens[0, 1:]).min() > 1e-3


def test_categories_of_two_columns_do_not_share_a_row():
    net = encoder()
    zero = net.category(net.offsets)
    assert not torch.equal(zero[0], zero[1])
    assert net.offsets.tolist() == [0, 3]


def test_a_wrong_table_is_one_clear_error():
    with pytest.raises(MedclError, match="column 0 has a category above 2"):
        encoder()(torch.tensor([[3.0, 0.0, 0.0, 0.0]]))
    with pytest.raises(MedclError, match="has 3 columns, the method was set up for 4"):
        encoder()(TABLE[:, :3])


def test_fusion_depends_on_both_sides():
    torch.manual_seed(0)
    fusion = Fusion(16, 6, depth=2, heads=2)
    table, image = torch.randn(2, 5, 16), torch.randn(2, 9, 6)
    out = fusion(table, image)
    assert out.shape == (2, 5, 16)
    assert not torch.allclose(out[0], fusion(table, image.flip(0))[0])
    assert torch.allclose(out, fusion(table, image.flip(1)), atol=1e-5)  # a set of positions
