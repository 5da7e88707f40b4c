"""`python -m nstlab`, and what `nstlab` runs."""

import sys


def main() -> int:
    """Run one command. Returns the exit code.

    Ctrl-C is handled as soon as the program is imported; until then, it ends the process here."""
    try:
        from nstlab.cli import main as cli

        return cli.main()
    except KeyboardInterrupt:
        print("nstlab: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
