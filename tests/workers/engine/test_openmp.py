from pathlib import Path

import pytest

from workers.engine import openmp


def test_intel_s_library_is_loaded_first_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "libiomp5.so"
    library.touch()
    monkeypatch.setenv("LD_PRELOAD", "/lib/libtcmalloc.so")
    monkeypatch.setenv("KMP_BLOCKTIME", "1")

    given = openmp.environment(library)

    assert given == {"LD_PRELOAD": f"{library} /lib/libtcmalloc.so", "KMP_BLOCKTIME": "1", "KMP_TPAUSE": "0"}


@pytest.mark.parametrize("chosen", ["", "/lib/libgomp.so.1"])
def test_nothing_is_loaded_where_it_is_not_or_the_user_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    library = tmp_path / "libiomp5.so"
    if chosen:
        library.touch()
    monkeypatch.setenv("LD_PRELOAD", chosen)

    assert openmp.environment(library) == {}
