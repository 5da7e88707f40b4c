"""The names that users write, and the method's defaults: layers, poolings, optimizers, precisions, sources of weights.

Layer names follow Simonyan and Zisserman's VGG19: `conv4_2` is the second convolution of the fourth block before its ReLU,
`relu4_2` is its output after the ReLU, and `pool4` is the pooling at the end of the block. Imports nothing heavy.
"""

from __future__ import annotations

from nstlab.settings import InputError, nearest

BLOCKS = (2, 2, 4, 4, 4)  # convolutions in each of VGG19's five blocks, a pooling after each
CONVOLUTIONS = tuple(f"conv{block}_{i}" for block, n in enumerate(BLOCKS, 1) for i in range(1, n + 1))
POOLINGS = tuple(f"pool{block}" for block in range(1, len(BLOCKS) + 1))
LAYERS = CONVOLUTIONS + tuple(name.replace("conv", "relu") for name in CONVOLUTIONS) + POOLINGS
STYLE_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
CONTENT_LAYERS = ("conv4_2",)

POOLS = ("avg", "max", "l2")
COLOURS = ("painting", "matched", "luminance")  # of a transfer: see `colour`
OPTIMIZERS = ("lbfgs", "adam", "gd")
PRECISIONS = ("auto", "float32", "bfloat16", "tf32", "float16")
DOWNLOADS = ("imagenet", "caffe")
WEIGHTS = ("auto", *DOWNLOADS, "embedded", "random")
STEPS = 300
HISTORY = 50  # curvature pairs
RATE = 0.02  # change of a pixel in a first-order step; black to white is 1


def layer_name(name: str | int) -> str:
    """The name of a layer of VGG19, given that name or the index that tutorials use (1 = conv1_1, 4 = conv2_2).

    Raises InputError for a layer that VGG19 does not have."""
    text = str(name).strip()
    if text.isdecimal() and len(text) < 3 and 1 <= int(text) <= len(CONVOLUTIONS):
        return CONVOLUTIONS[int(text) - 1]
    if text in LAYERS:
        return text
    raise InputError(
        f"VGG19 has no layer '{text}'{nearest(text, LAYERS)} "
        f"(allowed: conv1_1 to conv5_4, relu1_1 to relu5_4, pool1 to pool5, or an index from 1 to {len(CONVOLUTIONS)})"
    )


def rectified(layer: str) -> str:
    """The name of a convolution's output after its ReLU: relu4_2 for conv4_2."""
    return layer.replace("conv", "relu")
