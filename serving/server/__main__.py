"""`python -m serving.server`."""

import sys

from . import main

sys.exit(main())
