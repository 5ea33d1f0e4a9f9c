"""``python -m kornia_lift``: the command ``kornia-lift``, for ``torchrun`` and where the script is not on the path."""

import sys

from kornia_lift.cli import main

sys.exit(main())
