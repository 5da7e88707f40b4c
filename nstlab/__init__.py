"""nstlab: a lab for neural style transfer (Gatys, Ecker, Bethge 2016).

    import nstlab as nst

    net = nst.normalize_activations(nst.VGG19(pool="avg"))
    photo, painting = nst.load("coffee", size=256), nst.load("painting.jpg")
    goal = 1.0 * nst.content("conv4_2", photo) + 20.0 * nst.style(nst.STYLE_LAYERS, painting)
    for step in nst.minimize(goal, net, start=nst.noise(photo, seed=0), steps=300):
        print(step.index, step.loss, step.terms)

Names are imported when they are first used, so that `import nstlab` costs nothing. It only sets how
threads wait, which has to be known before PyTorch is loaded.
"""

import lazy_loader

from nstlab.base.threads import share_cores

share_cores()

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
