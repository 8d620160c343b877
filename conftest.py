"""What holds for all tests, of tests/ and of compat/: one that hangs ends."""

pytest_plugins = ("tests.hangs",)
