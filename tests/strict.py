"""In CI nothing may be left out unseen: this plugin (`-p tests.strict`) turns every skip into a failure.

Three reasons stay a skip, because no set-up can mend them: no GPU, a GPU where the CPU build is asked, and no real
datasets beside the checkout. Such a reason begins with one of ALLOWED.
"""

from collections.abc import Generator

import pytest

ALLOWED = ("needs a GPU", "needs vLLM's CPU build", "needs the datasets mirror")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not reason.removeprefix("Skipped: ").startswith(ALLOWED):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was left out, and CI leaves nothing out: {reason}"
    return report
