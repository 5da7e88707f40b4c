"""Every network with every recipe, and every statistic with one network whose gradients are
computed by hand and one whose are not, on tiny pictures."""

import pytest
import torch
from faults import refusal

import nstlab as nst
from nstlab.networks.architectures import ARCHITECTURES
from nstlab.networks.weights import random_weights
from nstlab.recipes.base import known
from nstlab.recipes.plan import Plan
from nstlab.terms import statistics

WIDTHS = (4, 6, 8, 8, 8)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def plan_of(request):
    """Makes plans with a network of random weights, which is made once."""
    own = {"widths": WIDTHS} if ARCHITECTURES[request.param].blocks else {}
    net = nst.loss_network(
        request.param, weights=random_weights(0, network=request.param, **own), precision="float32"
    )

    def make(recipe, photo, painting, **changes):
        cls = known()[recipe]
        pictures = {
            name: {"content": photo, "style": painting}[role] for name, role in cls.roles().items()
        }
        options = {
            "size": 64,
            "steps": 2,
            "levels": 1,
            "weights": "random",
            "normalize": False,
            "precision": "float32",
        }
        settings = cls(**pictures, **options, network=request.param, **changes)
        like = Plan(settings, net, None, None, {}, {})
        return nst.prepare(settings, "cpu", like=like)

    return make


@pytest.fixture
def files(photo, painting, tmp_path):
    paths = [
        nst.save(nst.resize(image, (64, 56)), tmp_path / f"{i}.png")
        for i, image in enumerate((photo, painting))
    ]
    return [str(path) for path in paths]


@pytest.mark.parametrize("recipe", known())
def test_every_recipe_lowers_its_loss_with_every_network(plan_of, files, recipe):
    plan = plan_of(recipe, *files)
    assert plan.solve().loss < plan.losses([plan.start])[0]


@pytest.mark.parametrize("plan_of", ["vgg19", "squeezenet1_1"], indirect=True)
@pytest.mark.parametrize("statistic", statistics.names())
def test_every_statistic_has_a_gradient_with_both_kinds_of_networks(plan_of, files, statistic):
    plan = plan_of("texture", *files, statistic=statistic)
    smallest = min(
        min(shape[1:]) for shape in plan.net.shapes(plan.layers, plan.start.shape[-2:]).values()
    )
    if statistic == "patches" and smallest < 3:
        assert "patches have 3×3 positions, a layer has" in refusal(plan.solve)
        return
    assert plan.solve().loss < plan.losses([plan.start])[0]
    (term,) = (term for _, term in plan.objective.terms if term.name == "style")
    assert isinstance(term, statistics.kind(statistic))


def test_regions_are_found_and_mixed_statistics_work_with_every_network(plan_of, files):
    plan = plan_of("transfer", *files, regions=2)
    assert {"mask", "painting_mask"} < set(plan.inputs)
    count = len(plan.settings.style_layers)
    mixed = plan_of("transfer", *files, statistic=["gram"] * (count - 1) + ["mean-std"])
    assert len([term for _, term in mixed.objective.terms if term.name.startswith("style")]) == 2
    assert torch.isfinite(mixed.solve().image).all()
