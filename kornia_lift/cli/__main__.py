"""``python -m kornia_lift.cli``; ``torchrun`` takes a module too: ``torchrun -m kornia_lift.cli extract ...``."""

import sys

from kornia_lift.cli import main

sys.exit(main())
