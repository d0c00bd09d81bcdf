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

Form = Literal["svg", "png", "json"]
VEGA_LITE = "v6_1"
MOST_KEPT = 64

_kept: OrderedDict[tuple[str, Form], bytes] = OrderedDict()
_one_at_a_time = threading.Lock()


def picture(spec: dict[str, Any], form: Form) -> bytes:
    """The picture in the wanted form.

    Raises:
        Refused: vl-convert is not installed on the hub.
    """
    text = json.dumps(spec, sort_keys=True)
    with _one_at_a_time:
        found = _kept.get((text, form))
        if found is None:
            found = _kept[text, form] = _convert(text, form)
            while len(_kept) > MOST_KEPT:
                _kept.popitem(last=False)
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
