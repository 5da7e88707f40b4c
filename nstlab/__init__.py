"""nstlab: a lab for neural style transfer (Gatys, Ecker, Bethge 2016).

    import nstlab as nst

    net = nst.VGG19(pool="avg")
    photo, painting = nst.load("coffee", size=256), nst.load("painting.jpg")
    goal = 1.0 * nst.content("conv4_2", photo) + 20.0 * nst.style(nst.STYLE_LAYERS, painting)
    for step in nst.minimize(goal, net, start=nst.noise(photo, seed=0), steps=300):
        print(step.index, step.loss, step.terms)

Names are imported when they are first used, so that `import nstlab` costs nothing. It only sets how threads wait, which has
to be known before PyTorch is loaded.
"""

from importlib import import_module
from typing import Any

from nstlab.threads import share_cores

share_cores()

_HOMES = {
    "settings": (
        "CONVENTIONS CONTENT_LAYERS LAYERS STYLE_LAYERS InputError JobSettings ReconstructSettings TextureSettings "
        "TransferSettings"
    ),
    "images": "fit grey load noise read_settings resize rings sample samples save save_gif to_pil white_noise",
    "weights": "Preprocessing Weights",
    "network": "VGG19 mean_activations normalize_activations",
    "statistics": "covariance gram",
    "objectives": "Objective content style total_variation",
    "optimizers": "LBFGS Adam GradientDescent",
    "checkpoint": "Checkpoint",
    "engine": "Result Status Step minimize pyramid solve",
    "recipes": "Plan device prepare",
    "store": "Store run_id",
    "index": "history runs",
    "figures": "before_after contact_sheet loss_curves",
    "sweep": "Sweep",
    "studio": "Studio",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nstlab' has no attribute '{name}'")
    return getattr(import_module(f"nstlab.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
