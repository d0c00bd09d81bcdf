import pytest

from workers.engine.info import version_in


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n", "550.54.15"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs-builder@U22)\nGCC "
            "version:  gcc version 12.3.0\n",
            "570.86.15",
        ),
        ("GCC version:  gcc version 12.3.0\n", ""),
        ("", ""),
    ],
)
def test_the_driver_s_version_is_read_from_what_the_kernel_tells(told: str, version: str) -> None:
    assert version_in(told) == version
