"""Real clients against kpy: the harness, and one directory of tests for each client."""
