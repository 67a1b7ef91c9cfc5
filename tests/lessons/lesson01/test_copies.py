"""Copies to the GPU: what is asked of PyCUDA, and the picture, of made-up times."""

import json

import pictures
import pytest

from tutorial_utils.lessons.lesson01 import copies
from tutorial_utils.lessons.lesson01.copies import Copy


@pytest.mark.parametrize("kind", copies.KINDS)
def test_copies_of_both_kinds(runner, monkeypatch, kind):
    monkeypatch.setattr(copies, "SIZES", (64, 256))
    found = json.loads(json.dumps(copies.measure(kind, {})))
    assert [one[:2] for one in found["copies"]] == [[kind, 64], [kind, 256]]
    assert all(0 <= call <= copy for _, _, call, copy in found["copies"])
    assert runner.cuda.pagelocked_empty.call_count == 2 * (kind == "pinned")
    sources = [call.args[1] for call in runner.cuda.memcpy_htod_async.call_args_list]
    assert {one.nbytes for one in sources} == {64, 256}
    assert runner.cuda.mem_alloc.return_value.free.call_count == 2


def test_picture_of_copies():
    calls = {"pinned": 0.25, "pageable": 1.0}
    shown = [Copy(kind, size, calls[kind], 1.0) for kind in copies.KINDS for size in copies.SIZES]
    picture = copies.draw(shown)
    rates, shares = pictures.drawn(picture)
    assert pictures.marks(rates)[0] == pytest.approx((4, 4096e3 / 1e9))
    assert [y for _, y in pictures.marks(shares)] == [75] * len(copies.SIZES) + [0] * len(copies.SIZES)
    assert "from pinned memory 268.4 GB/s" in picture.alt
    assert picture.text.splitlines()[0] == (
        "pinned      4 KiB:   0.00 GB/s; the call returns after 0.2500 of 1.0000 ms"
    )


def test_rows_are_read():
    row = {"stack": 0, "date": "2026"}
    data = {"stacks": [{}], "rows": {"pinned": {**row, "values": {"copies": [["pinned", 4096, 0.1, 0.2]]}},
                                     "pageable": {**row, "reason": "It failed."}}}  # fmt: skip
    assert copies.read(data) == [Copy("pinned", 4096, 0.1, 0.2)]


@pytest.mark.gpu
def test_copies_on_a_gpu(monkeypatch):
    monkeypatch.setattr(copies, "SIZES", (2**26,))
    pinned, pageable = (Copy(*copies.measure(kind, {})["copies"][0]) for kind in copies.KINDS)
    assert pinned.bandwidth > pageable.bandwidth
    assert pinned.returns_before > 0.5
