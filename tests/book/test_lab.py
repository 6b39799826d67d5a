"""What the notebooks' experiments share."""

from __future__ import annotations

import pytest
import torch

import gmmedu
from gmmbook.lab import STUDIES, side_by_side, study


@pytest.mark.parametrize("family", gmmedu.MODELS)
def test_fits_side_by_side_end_where_each_alone_does(family: str) -> None:
    x = gmmedu.load_old_faithful()
    models = []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        model = gmmedu.MODELS[family](3, 2, dtype=x.dtype)
        models.append(gmmedu.initialize(model, x, "points", generator=generator))
    many = side_by_side(models)
    for row, model in enumerate(models):
        for name, value in model.state_dict().items():
            assert torch.equal(many.state_dict()[name][row], value)
    together = gmmedu.fit_em(many, x, 50, tolerance=0)
    alone = [gmmedu.fit_em(model, x, 50, tolerance=0).nll for model in models]
    assert together.nll.tolist() == pytest.approx(alone, abs=1e-9)


def test_what_is_held_fixed_stays_so() -> None:
    x = gmmedu.load_old_faithful()
    model = gmmedu.initialize(gmmedu.GmmFull(2, 2, dtype=x.dtype), x)
    model.means.requires_grad_(False)
    many = side_by_side([model, model])
    gmmedu.fit_em(many, x, 5, tolerance=0)
    assert torch.equal(many.means, model.means.expand_as(many.means))
    assert not torch.equal(many.logits, model.logits.expand_as(many.logits))


@pytest.mark.parametrize(
    "models",
    [
        [],
        [gmmedu.GmmFull(2, 2), gmmedu.GmmTied(2, 2)],
        [gmmedu.GmmFull(2, 2), gmmedu.GmmFull(3, 2)],
        [gmmedu.GmmFull(2, 2, batch_shape=2)],
    ],
)
def test_what_cannot_stand_side_by_side_is_refused(models: list[gmmedu.GaussianMixture]) -> None:
    with pytest.raises(ValueError, match="models must be single mixtures of one class and shape"):
        side_by_side(models)


def test_the_studies_come_with_the_package() -> None:
    columns = {
        "classifiers": {"data", "method", "shuffle", "error", "training", "nll", "on_floor"},
        "collapse": {"family", "ratio", "collapsed"},
        "density": {"kind", "num_points", "rate", "failed", "test"},
        "features": {"data", "labels", "method", "draw", "score"},
        "galaxies": {"fits", "family", "weights", "means", "sds", "held_out", "regular"},
        "race": {"data", "method", "within", "lowest", "passes", "arrived"},
        "reliability": {"data", "fits", "worse"},
        "scale": {"study"},
        "segmentation": {"family", "position", "weights", "means", "factors", "nll"},
    }
    for name in STUDIES:
        records = study(name)
        assert len(records) > 20 and all(columns[name] <= record.keys() for record in records)
    with pytest.raises(ValueError, match=r"name must be one of .*got '\.\./x'"):
        study("../x")
