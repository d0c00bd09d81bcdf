"""Turns a picture's specification into SVG, PNG, or what the browser's charting library draws.

vl-convert does it in this process, with no browser and no network. What was drawn is kept for as long as the board
does not change.
"""

import json
import threading
from collections import OrderedDict
from functools import lru_cache
from typing import Any, Literal

from orchestrator.errors import Refused
from submissions.places import Places

Form = Literal["svg", "png", "json"]
VEGA_LITE = "v6_1"
MOST_KEPT = 64
MOST_WAITING = 8
"""Requests that draw or wait to: each holds one of the threads that answer everybody."""

_kept: OrderedDict[tuple[str, Form], bytes] = OrderedDict()
_keeping = threading.Lock()
_one_at_a_time = threading.Lock()
places = Places(
    MOST_WAITING, sentence="Many pictures are being drawn at this moment. Ask for this one again in some seconds."
)


def picture(spec: dict[str, Any], form: Form) -> bytes:
    """The picture in the wanted form.

    Raises:
        Refused: vl-convert is not installed on the hub.
        Busy: too many are being drawn.
    """
    text = json.dumps(spec, sort_keys=True)
    found = _find(text, form)
    if found is not None:
        return found
    with places.taken(), _one_at_a_time:
        found = _find(text, form)  # somebody else may have had it drawn meanwhile
        if found is None:
            found = _convert(text, form)
            with _keeping:
                _kept[text, form] = found
                while len(_kept) > MOST_KEPT:
                    _kept.popitem(last=False)
    return found


def _find(text: str, form: Form) -> bytes | None:
    with _keeping:
        found = _kept.get((text, form))
        if found is not None:
            _kept.move_to_end((text, form))
        return found


def _convert(text: str, form: Form) -> bytes:
    converter = _converter()
    # Nothing of a specification is loaded from elsewhere.
    if form == "svg":
        return str(converter.vegalite_to_svg(text, vl_version=VEGA_LITE, allowed_base_urls=[])).encode()
    if form == "png":
        return bytes(converter.vegalite_to_png(text, vl_version=VEGA_LITE, scale=2, allowed_base_urls=[]))
    return json.dumps(converter.vegalite_to_vega(text, vl_version=VEGA_LITE)).encode()


@lru_cache(maxsize=1)
def _converter() -> Any:
    try:
        import vl_convert
    except ImportError as error:
        raise Refused("Pictures need vl-convert on the hub: pip install vl-convert-python.") from error
    return vl_convert
