"""``python -m kornia_lift.evaluation``."""

import sys

from .cli import main

sys.exit(main())
