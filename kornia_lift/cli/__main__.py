"""``python -m kornia_lift.cli``, for where the script is not on the path (torchrun -m)."""

import sys

from kornia_lift.cli import main

sys.exit(main())
