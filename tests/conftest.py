"""Settings for all tests."""

from hypothesis import settings

# examples are compiled, forked and shared with whatever else the machine does: no test asserts a time
settings.register_profile("rpucluster", deadline=None)
settings.load_profile("rpucluster")
