"""Words that pages take from elsewhere in the program and show as they are: states, kinds, columns, ranges of size.

They are named here so that catalogues hold them; templates translate them by the filter `term`. Whole sentences that
the program makes (why something waits, why it failed) are English everywhere.
"""


def _(message: str) -> str:
    return message


STATES = (
    _("planned"),
    _("queued"),
    _("waiting"),
    _("preparing"),
    _("running"),
    _("scoring"),
    _("finished"),
    _("failed"),
    _("cancelled"),
)
