"""Terms beside the paper's: other people's additions to the method, one file each. Names are
imported when first used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
