"""Costs are of one edit alone: memory used and given back before it does not count."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.costs import RESET, measured, size_of

MB = 2**20


def test_memory_of_an_edit_is_its_own_peak() -> None:
    if not RESET.exists():
        pytest.skip("the kernel's high-water mark can be set back on Linux only")
    big = bytearray(300 * MB)
    big[::4096] = b"x" * len(big[::4096])
    del big
    with measured() as costs:
        small = bytearray(60 * MB)
        small[::4096] = b"x" * len(small[::4096])
        del small
    assert 50 <= costs["extra_mb"] < 150
    assert costs["peak_mb"] >= costs["extra_mb"]
    assert 0 <= costs["seconds"] < 60


def test_size_counts_the_edit_and_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "edit.safetensors").write_bytes(b"x" * 1000)
    (tmp_path / "edit.json").write_bytes(b"{}")
    (tmp_path / "costs.json").write_bytes(b"x" * 50)
    assert size_of(tmp_path) == 1002
