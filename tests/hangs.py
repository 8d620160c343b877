"""A test that hangs ends, is named, and the run goes on.

pytest-timeout raises in the test when its time is up, which leaves its fixtures to clean up. It is not enough: a call
into C that waits without the GIL never sees the signal, an exception raised in `__del__` is swallowed, and after any
failure the timer is off, so that fixtures which wait for a broken broker wait for ever. Therefore

- taking down has a time of its own, as long as the test's;
- when that is over by GRACE_S and the test still stands, a thread in C prints all stacks and ends the process;
- pytest-xdist, which sees a process die, fails the test that it was at and starts another one, which gets what is left.

A process that does not end when its tests have, since a thread of them goes on, is ended in the same way.
"""

import faulthandler
import os
from typing import Any

import pytest

GRACE_S = 60.0
"""For the cleaning up of fixtures after a timeout has been raised in a test."""

_settings = pytest.StashKey[Any]()
_stderr = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_stderr] = os.dup(2)  # While it is not captured.


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> None:
    """Beside pytest-timeout's own timer, whose hook this is."""
    item.stash[_settings] = settings
    _end_after(settings.timeout + GRACE_S, item.config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    if _settings in item.stash:
        item.config.hook.pytest_timeout_set_timer(item=item, settings=item.stash[_settings])


@pytest.hookimpl(optionalhook=True)
def pytest_timeout_cancel_timer() -> None:
    faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # What pytest-xdist has started it ends, and lets it wait until then.
        _end_after(GRACE_S, config)


def _end_after(seconds: float, config: pytest.Config) -> None:
    faulthandler.dump_traceback_later(seconds, exit=True, file=config.stash[_stderr])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class EachTestOnce(LoadFileScheduling):
        """Files are shared out; of the file at which a process died, what comes after the test that it died in.

        The base class begins again with that test, until all restarts are used up. And it gives a process that comes
        later a file of one test, which waits for ever: a test is run when it is known which is next, or that none is.
        """

        def remove_node(self, node: Any) -> str | None:
            pending = (
                (tests, name)
                for tests in self.assigned_work[node].values()
                for name, is_complete in tests.items()
                if not is_complete
            )
            tests, died_in = next(pending, ({}, None))
            if died_in is not None:
                tests[died_in] = True
            super().remove_node(node)
            return died_in

        def _reschedule(self, node: Any) -> None:
            if node not in self.registered_collections:
                return  # It is still collecting, and asked for again when it has.
            super()._reschedule(node)
            while not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
                super()._reschedule(node)

    return EachTestOnce(config, log)
