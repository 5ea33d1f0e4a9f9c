"""``python -m kornia_lift.evaluation``."""

import sys

from kornia_lift.cli.evaluate import main

sys.exit(main())
