"""Feature files are h5 files."""

import pytest

pytest.importorskip("h5py")
