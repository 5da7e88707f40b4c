"""Replayed evaluations and copies to the host: their logic on any machine, and on a GPU where there
is one."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nstlab import content, minimize, noise, style, term, total_variation
from nstlab.base.names import POOLS
from nstlab.method.fast import convolutions
from nstlab.method.fast import tiles as fast
from nstlab.method.fast.arithmetic import Arithmetic
from nstlab.method.fast.graphs import Replayed, to_host
from nstlab.method.lbfgs import LBFGS
from nstlab.method.optimizers import Evaluation, State
from nstlab.networks.vgg import VGG19
from nstlab.terms.affine import Affine
from nstlab.terms.lines import Lines
from nstlab.terms.regions import region_styles


def test_a_function_is_captured_once_after_a_few_plain_calls_and_gives_the_same():
    captured, memory, found = [], torch.empty(2), []

    def capture(function, x):
        captured.append(x)
        # as a CUDA graph does: always from and into the same memory
        return lambda: [memory.copy_(*function(x))]

    replayed = Replayed(lambda x: [2 * x], capture)
    inputs = torch.rand(Replayed.PLAIN + 3, 2)
    for i, x in enumerate(inputs):
        found.extend(replayed(x))
        assert len(captured) == (i >= Replayed.PLAIN)
    assert torch.equal(torch.stack(found), 2 * inputs)  # copies, which later calls do not change


def need_meta_convolutions():
    """Skip the test where PyTorch convolves nothing on the device 'meta', as older releases."""
    x = torch.empty(1, 3, 8, 8, device="meta")
    try:
        convolutions.Convolution(x.new_empty(3, 3, 3, 3), x.new_empty(3), (1, 3, 8, 8))(x, x)
    except NotImplementedError:
        pytest.skip("this PyTorch does not convolve on the device 'meta'")


class Visits(TorchDispatchMode):
    """Operators that touch memory of the host. All else is on the device 'meta', from which nothing
    can be fetched."""

    def __enter__(self):
        self.found = []
        return super().__enter__()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        if any(
            isinstance(t, torch.Tensor) and t.device.type == "cpu"
            for t in tree_leaves((args, kwargs, result))
        ):
            self.found.append(operator.name())
        return result


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_evaluation_stays_on_the_device(tiny, pool, dtype):
    need_meta_convolutions()
    net, picture = VGG19(tiny, pool=pool).to("meta"), torch.empty(1, 3, 48, 48, device="meta")
    goal = (
        content(("conv2_2", "conv4_2"), picture)
        + 1e2 * style(("conv1_1", "conv3_1"), picture)
        + total_variation()
    )
    bound = fast.bind(goal, net, (48, 48), Arithmetic(dtype))
    with Visits() as visits:
        loss, grad, values = bound.evaluate(picture)
    assert not visits.found
    assert (loss.shape, grad.shape, values.shape) == ((), (1, 3, 48, 48), (3,))


def test_masks_drawings_and_photos_are_sent_to_the_device_once(tiny):
    need_meta_convolutions()
    """As a CUDA graph needs it, which is recorded after two evaluations."""
    picture, masks = torch.empty(1, 3, 48, 48, device="meta"), torch.ones(1, 2, 48, 48)
    goal = region_styles(("conv1_1", "conv3_1"), picture, masks, masks, (), "mean")
    goal += term(Lines, "lines", ("conv1_1",), drawing=torch.rand(1, 3, 48, 48))
    goal += term(Affine, "affine", ("conv1_1",), photo=torch.rand(1, 3, 48, 48))
    bound = fast.bind(goal, VGG19(tiny).to("meta"), (48, 48), Arithmetic(torch.float32))
    bound.evaluate(picture)
    with Visits() as visits:
        bound.evaluate(picture)
    assert not visits.found


def test_a_step_of_lbfgs_sends_the_order_of_its_pairs_and_fetches_five_numbers(monkeypatch):
    fetched, x = [], torch.empty(1, 3, 8, 8, device="meta")
    monkeypatch.setattr(
        torch.Tensor,
        "tolist",
        lambda t: fetched.append(t.shape) or [1 / len(fetched), -1.0, 1.0, 1.0, 1.0],
    )
    at = Evaluation(x.new_empty(()), x, x.new_empty(1))
    state = State(x, at, 2.0, {}, {"order": [], "length": 0.01})
    for _ in range(5):
        with Visits() as visits:
            state = LBFGS(history=3).step(state, lambda x: at)
    assert sorted(visits.found) == ["aten::_to_copy", "aten::lift_fresh"]
    assert state.numbers["order"] == [2, 3, 0]
    assert fetched == [(5,)] * 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_runs_on_a_gpu_are_the_same_with_and_without_replay(net, photo, painting, monkeypatch):
    goal = content("conv4_2", photo) + 1e2 * style(("conv1_1", "conv3_1"), painting)

    def pictures():
        return [
            to_host(step.snapshot())()
            for step in minimize(goal, net.to("cuda"), noise(photo, 0), steps=12)
        ]

    replayed = pictures()
    monkeypatch.setattr(Replayed, "PLAIN", 1000)
    for a, b in zip(replayed, pictures(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
