"""The names that users write, and the method's defaults.

Layer names follow Simonyan and Zisserman's VGG19: `conv4_2` is the second convolution of the fourth
block before its ReLU, `relu4_2` is its output after the ReLU, and `pool4` is the pooling at the end
of the block. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Sequence

BLOCKS = (2, 2, 4, 4, 4)  # convolutions in each of VGG19's five blocks, a pooling after each
POOL = "pool"  # what the names of poolings begin with


def vgg_layers(blocks: Sequence[int]) -> tuple[str, ...]:
    """The layers of a VGG in order: conv1_1, relu1_1, …, pool1, …

    Args:
        blocks: convolutions in each block.
    """
    layers = []
    for block, count in enumerate(blocks, 1):
        for number in range(1, count + 1):
            layers += [f"conv{block}_{number}", f"relu{block}_{number}"]
        layers.append(f"{POOL}{block}")
    return tuple(layers)


LAYERS = vgg_layers(BLOCKS)
CONVOLUTIONS = tuple(name for name in LAYERS if name.startswith("conv"))
# Convolutions, and the names of their outputs after the ReLU; those without a second number are
# AlexNet's and SqueezeNet's.
RECTIFIED = {
    name: name.replace("conv", "relu")
    for name in (*CONVOLUTIONS, *(f"conv{i}" for i in range(1, 6)))
}
STYLE_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
CONTENT_LAYERS = ("conv4_2",)

POOLS = ("avg", "max", "l2")
COLOURS = ("painting", "matched", "luminance")  # of a transfer: see `colour`
OPTIMIZERS = ("lbfgs", "adam", "gd")
PRECISIONS = ("auto", "float32", "bfloat16", "tf32", "float16")
DOWNLOADS = ("imagenet", "caffe")
RAFT = "raft_large"  # torchvision's name of the network that finds optical flow
WEIGHTS = ("auto", *DOWNLOADS, "embedded", "random")
ANY_NETWORKS = ("auto", "imagenet", "random")  # weights that networks other than VGG19 have too
STEPS = 300
# Pixels of the long side, beyond which coarser sizes leave fewer and fewer steps to be done.
FULL = 1024
HISTORY = 50  # curvature pairs
RATE = 0.02  # change of a pixel in a first-order step; black to white is 1


def rectified(layer: str) -> str:
    """The name of a convolution's output after its ReLU, relu4_2 for conv4_2.

    Other layers keep their names.
    """
    return RECTIFIED.get(layer, layer)
