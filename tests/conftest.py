"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# A machine that does other things at the same time is no failure: pytest's time-out ends what hangs.
settings.register_profile("here", deadline=None)
settings.load_profile("here")
