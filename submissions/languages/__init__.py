"""In which language a page is: chosen for each request, English where nothing else is known.

Templates and what they call ask here; the API, the command line and exports are English and never do.
"""

from submissions.languages.catalogues import LANGUAGES, Language
from submissions.languages.present import (
    N_,
    address_in,
    gettext,
    ngettext,
    present_language,
    set_present,
)

__all__ = ["LANGUAGES", "N_", "Language", "address_in", "gettext", "ngettext", "present_language", "set_present"]
