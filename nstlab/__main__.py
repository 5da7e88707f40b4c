"""`python -m nstlab`."""

import sys

from nstlab.cli import main

sys.exit(main())
