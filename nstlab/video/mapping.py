"""Pictures with wide colours or a high dynamic range, mapped to BT.709.

Formulas: ITU-R BT.2100 (PQ, HLG), BT.2020 and BT.709 (their transfer function, inverted as it is),
BT.2087 (primaries). White is at 203 cd/m² (BT.2408). Luminances are mapped by the curve of Reinhard
et al. (2002, Photographic Tone Reproduction for Digital Images, equation 4), which leaves dark ones
as they are and makes the brightest that can be coded white.
"""

from __future__ import annotations

import torch
from torch import Tensor

WHITE = 203.0  # cd/m²
PQ, HLG = 16, 18  # FFmpeg's numbers of transfer functions
# cd/m², the brightest that can be coded, or is assumed of a display
PEAKS = {PQ: 10_000.0, HLG: 1000.0}
BT2020, P3 = 9, (11, 12)  # of primaries
TO_BT709 = {  # linear R, G, B of primaries -> of BT.709
    BT2020: ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    P3: ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0979)),
}
LUMA = (0.2627, 0.6780, 0.0593)  # luminance of BT.2020's primaries


def map_to_bt709(picture: Tensor, primaries: int, transfer: int) -> Tensor:
    """Map colours and luminances to those of BT.709.

    Args:
        picture: (1, 3, H, W) coded values in [0, 1].
        primaries: FFmpeg's number; others than BT2020 and P3 are taken for those of BT.2020.
        transfer: FFmpeg's number of the transfer function; others than PQ and HLG are taken for
            that of BT.709.

    Returns:
        (1, 3, H, W) coded values in [0, 1].
    """
    if transfer in PEAKS:
        display_light = _pq_to_light(picture) if transfer == PQ else _hlg_to_light(picture)
        light = _tone_map(display_light / WHITE, PEAKS[transfer] / WHITE)
    else:
        light = torch.where(
            picture < 0.081, picture / 4.5, ((picture + 0.099) / 1.099) ** (1 / 0.45)
        )
    matrix = torch.tensor(TO_BT709[P3 if primaries in P3 else BT2020])
    light = torch.einsum("ij,bjhw->bihw", matrix, light).clamp(0, 1)
    return torch.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099)


def _tone_map(light: Tensor, peak: float) -> Tensor:
    """Reinhard's curve of luminances, in which `peak` becomes 1; white is 1 before it."""
    luminance = (light * _column(LUMA)).sum(1, keepdim=True)
    return light * (1 + luminance / peak**2) / (1 + luminance)


def _pq_to_light(signal: Tensor) -> Tensor:
    """Light of a display in cd/m², of values coded as PQ (BT.2100)."""
    power = signal ** (32 / 2523)
    ratio = (power - 3424 / 4096).clamp(min=0) / (2413 / 128 - 2392 / 128 * power)
    return 10_000 * ratio ** (16384 / 2610)


def _hlg_to_light(signal: Tensor) -> Tensor:
    """Light in cd/m² of a display of 1000 cd/m², whose system gamma is 1.2, coded as HLG."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = torch.where(signal <= 0.5, signal**2 / 3, (((signal - c) / a).exp() + b) / 12)
    luminance = (scene * _column(LUMA)).sum(1, keepdim=True)
    return PEAKS[HLG] * scene * luminance**0.2


def _column(values: tuple[float, ...]) -> Tensor:
    """(1, C, 1, 1)."""
    return torch.tensor(values).view(1, -1, 1, 1)
