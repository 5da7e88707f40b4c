"""Make the bundled style paintings: python data/paint.py [NAME ...] [--out DIR] [--size PIXELS].

Each picture is a module in `painters` with a function `paint`; the same picture comes out at every
run.
"""

import argparse
import importlib
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = (
    "swirl_strokes",
    "stained_glass",
    "pointillism",
    "wave_engraving",
    "cubist_planes",
    "ink_wash",
    "fauve_hills",
    "mosaic",
)
BEST_QUALITY = 92
LIMIT = 450_000  # bytes
HERE = Path(__file__).parent / "style"


def picture(name, size):
    """Paint one picture and reduce it so that its longer side measures `size` pixels."""
    # a seed of its own, whatever else is made in the run
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    color = importlib.import_module(f"painters.{name}").paint(rng)
    full = Image.fromarray((np.clip(color, 0, 1) * 255 + 0.5).astype(np.uint8))
    scale = size / max(full.size)
    return full.resize([round(n * scale) for n in full.size], Image.Resampling.LANCZOS)


def save(image, target):
    """Save a picture at the best quality that keeps it within LIMIT bytes."""
    for quality in range(BEST_QUALITY, 60, -1):
        image.save(target, quality=quality, optimize=True)
        if target.stat().st_size <= LIMIT:
            break


def arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Make the bundled style paintings.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)"
    )
    parser.add_argument(
        "--out", type=Path, default=HERE, help="folder to write to (default: data/style)"
    )
    parser.add_argument(
        "--size", type=int, default=1024, help="longer side in pixels (default: %(default)s)"
    )
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(NAMES))
    if unknown:
        parser.error(f"no such picture: {', '.join(unknown)}")
    return args


def main():
    """Make the pictures asked for."""
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names or NAMES:
        target = args.out / f"{name}.jpg"
        save(picture(name, args.size), target)
        print(f"{target}: {target.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
