"""How badly a student stands for its teachers, layer by layer: the losses of its training.

A linear map of the student's features is compared with the teacher's features, and so are the Gram
matrices, in the way transfers are judged: every channel in units of its mean over two pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nstlab.base.names import STYLE_LAYERS
from training.student import TINY

# layers whose features have to tell a picture from its photo
JUDGED = ("conv3_3", "conv4_1", "conv4_2")
# positions from one at which features are compared to the next, by block
STRIDE = {"1": 6, "2": 3, "3": 2, "4": 1, "5": 1}
FLOOR = 0.03  # part of a channel's usual mean: the least that its error is divided by
# mean square over squared mean; a channel above it answers too rarely for a stable Gram matrix
PEAK = 20.0
# squared mean over mean square; a channel of the fifth block above it is less sparse than VGG19's
DENSE = 0.2
# mean at the border over mean inside; a channel of the upper blocks above it sees the padding, not
# the picture
FRAMED = 1.3
LOSSES = {
    "features": 1.0,
    "gram": 1.0,
    "residual": 2.0,
    "distance": 2.0,
    "peaked": 0.5,
    "dense": 0.2,
    "framed": 0.5,
}
# weights of layers; 1 for the others
LAYERS = {"conv4_1": 2.0, "conv4_2": 2.0, "conv5_2": 0.2, "conv5_3": 0.2, "conv5_4": 0.2}


def rows_of(f: Tensor) -> Tensor:
    """(B, C, h, w) channels-last -> (B, h·w, C), a view."""
    return f.permute(0, 2, 3, 1).flatten(1, 2)


def _thin(name: str, f: Tensor, offset: int) -> Tensor:
    """A layer's (B, C, h, w) -> (B, n, C): every STRIDE-th row and column; the offset shifts."""
    stride = STRIDE[name[4]]
    return rows_of(f[..., offset % stride :: stride, offset // stride % stride :: stride])


def _power(f: Tensor) -> Tensor:
    """(B, n, C) -> (B, C) float32: mean of squares."""
    return f.square().mean(1, dtype=torch.float32)


def _weighed(f: Tensor, unit: Tensor) -> Tensor:
    """(B, n, C) measured in units (B, C) -> (B,): sum over channels of the mean of squares."""
    return (_power(f) * unit.square()).sum(1)


def peaked(f: Tensor) -> Tensor:
    """How far channels answer in rare peaks.

    The mean logarithm of how far their mean square in any picture exceeds PEAK times their squared
    mean.

    Args:
        f: (B, n, C).
    """
    peak = _power(f).amax(0) / (f.mean((0, 1), dtype=torch.float32).square() + TINY)
    return (peak / PEAK).clamp(min=1).log().mean()


def dense(f: Tensor) -> Tensor:
    """How far channels answer everywhere.

    The mean logarithm of how far their squared mean exceeds DENSE times their mean square (Treves
    and Rolls 1991).

    Args:
        f: (B, n, C).
    """
    density = f.mean((0, 1), dtype=torch.float32).square() / (_power(f).mean(0) + TINY)
    return (density / DENSE).clamp(min=1).log().mean()


def framed(f: Tensor) -> Tensor:
    """How far channels see the border.

    The mean logarithm of how far their mean at the border exceeds FRAMED times that inside.

    Args:
        f: (B, C, h, w).
    """
    inner = f[..., 1:-1, 1:-1]
    total = f.sum((0, 2, 3), dtype=torch.float32)
    inner_total = inner.sum((0, 2, 3), dtype=torch.float32)
    inner_count = inner[:, 0].numel()
    border_mean = (total - inner_total) / (f[:, 0].numel() - inner_count)
    ratio = border_mean / (inner_total / inner_count + TINY)
    return (ratio / FRAMED).clamp(min=1).log().mean()


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """How differently student and teacher see where, and how far, pictures depart from photos.

    An optimizer goes by the student's own distances, not by those after a linear map.

    Args:
        student, teacher: features of pictures and of their photos, (2, n, positions, C), in units.
    """
    distances = []
    for f in (student, teacher):
        size = f[1].square().sum(-1).mean(1, keepdim=True) + TINY
        distances.append(((f[0] - f[1]).square().sum(-1) / size + TINY).sqrt())
    ours, theirs = distances
    return ((ours - theirs).square().mean(1) / theirs.square().mean(1)).log1p().mean()


def _total(x: Tensor) -> Tensor:
    """(B, …) -> (B,) sum of squares."""
    return x.square().flatten(1).sum(1)


def relative_error(x: Tensor, target: Tensor) -> Tensor:
    """(B, …) -> (B,): squared error over the target's sum of squares."""
    return _total(x - target) / (_total(target) + TINY)


def gram(f: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, C) float32: mean over positions of the products of channels."""
    rows = rows_of(f)
    return (rows.transpose(1, 2) @ rows).float() / rows.shape[1]


def units(mean: Tensor, triples: int) -> Tensor:
    """The factors of channels: 2 / (sum of two pictures' means), as the judge has them.

    The two are each picture and the one before it. But the batch begins with triples, first all
    their optimized pictures, then all their paintings, then all their photos: for these the two are
    the painting and the photo.

    Args:
        mean: of each picture's channels, (B, C).
        triples: how many there are.

    Returns:
        (B, C).
    """
    first = mean
    second = mean.roll(1, 0)
    if triples:
        paintings = mean[triples : 2 * triples].repeat(3, 1)
        photos = mean[2 * triples : 3 * triples].repeat(3, 1)
        first = torch.cat([paintings, mean[3 * triples :]])
        second = torch.cat([photos, second[3 * triples :]])
    return 2 / (first + second + 2 * FLOOR)


def compare(
    name: str,
    student: Tensor,
    teacher: Tensor,
    projection: Tensor,
    mean: Tensor,
    triples: int,
    offset: int,
) -> dict[str, Tensor]:
    """How badly a layer of the student stands for a teacher's.

    All are means of log(1 + relative error). So a picture that fools the student completely does
    not dominate the batch, but is not given up either.

    Args:
        name: of the student's layer.
        student: (B, S, h, w).
        teacher: (B, T, h, w), with channels of usual mean 1.
        projection: (T, S), the linear map.
        mean: (S,), the usual mean of the student's channels.
        triples: see `units`.
        offset: see `_thin`.

    Returns:
        {kind: scalar}.
    """
    s = _thin(name, student, offset)
    t = _thin(name, teacher, offset)
    unit = units(t.mean(1, dtype=torch.float32), triples)  # (B, T)
    error = s @ projection.T.to(s.dtype) - t  # (B, n, T)
    size = _weighed(t, unit) + TINY  # (B,)
    losses = {"features": (_weighed(error, unit) / size).log1p().mean()}
    if name in STYLE_LAYERS:
        losses |= _compare_grams(student, teacher, projection, unit, triples)
    if name in JUDGED and triples:
        pictures = slice(triples)
        photos = slice(2 * triples, 3 * triples)
        missed = _weighed(error[pictures] - error[photos], unit[photos])
        losses["residual"] = (missed / size[photos]).log1p().mean()
        ours = s / mean.clamp(min=FLOOR).to(s.dtype)
        theirs = t * unit[:, None].to(t.dtype)
        losses["distance"] = distance(
            *(torch.stack([f[pictures], f[photos]]).float() for f in (ours, theirs))
        )
    return losses


def _compare_grams(
    student: Tensor, teacher: Tensor, projection: Tensor, unit: Tensor, triples: int
) -> dict[str, Tensor]:
    """The losses of Gram matrices; of triples also of what tells a picture from its painting."""
    units_of_pairs = unit[:, :, None] * unit[:, None]
    theirs = gram(teacher) * units_of_pairs
    error = projection @ gram(student) @ projection.T * units_of_pairs - theirs
    size = _total(theirs) + TINY
    losses = {"gram": (_total(error) / size).log1p().mean()}
    if triples:
        pictures = slice(triples)
        paintings = slice(triples, 2 * triples)
        missed = _total(error[pictures] - error[paintings]) / (size[pictures] + size[paintings])
        losses["residual"] = missed.log1p().mean()
    return losses


def unhealthy(name: str, student: Tensor, offset: int) -> dict[str, Tensor]:
    """How far a layer of the student answers in ways that no teacher's does.

    Args:
        name: of the layer.
        student: (B, S, h, w).
        offset: see `_thin`.

    Returns:
        {kind: scalar}.
    """
    s = _thin(name, student, offset)
    losses = {"peaked": peaked(s)}
    if name >= "conv4":
        losses["framed"] = framed(student)
    if name.startswith("conv5"):
        losses["dense"] = dense(s)
    return losses
