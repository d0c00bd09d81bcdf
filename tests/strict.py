"""In CI nothing may be left out unseen: this plugin (`-p tests.strict`) turns every skip into a failure.

The one reason that stays a skip is a GPU that the machine does not have: start it with "needs a GPU".
"""

from collections.abc import Generator

import pytest

ALLOWED = "needs a GPU"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if ALLOWED not in reason:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was left out, and CI leaves nothing out: {reason}"
    return report
