"""``python -m kornia_lift.training``: what ``torchrun`` starts; the same as ``kornia-lift``."""

from __future__ import annotations

import sys

from kornia_lift.cli import main

if __name__ == "__main__":
    sys.exit(main())
