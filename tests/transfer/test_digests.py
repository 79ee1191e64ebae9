"""Digests in threads of their own: in order, of the right bytes."""

from __future__ import annotations

import hashlib
import random

import pytest

from dsollama.transfer.digests import READ_AHEAD, DigestPipeline, rotating_buffers

BLOCK = 2**16


@pytest.mark.parametrize("count", [1, 2])
def test_buffers_are_not_used_again_before_they_are_digested(count: int) -> None:
    chance, buffers = random.Random(count), rotating_buffers(BLOCK)
    digests, expected = [hashlib.sha256() for _ in range(count)], hashlib.sha256()
    with DigestPipeline() as pipeline:
        for _ in range(20 * READ_AHEAD):
            view = next(buffers)[: chance.randint(1, BLOCK)]
            view[:] = chance.randbytes(len(view))
            expected.update(view)
            pipeline.feed(digests, view, lambda: None)
        pipeline.finish()
        assert {digest.hexdigest() for digest in digests} == {expected.hexdigest()}


def test_each_block_is_reported_once_in_order_and_behind_its_digests() -> None:
    done: list[int] = []
    with DigestPipeline() as pipeline:
        digest = hashlib.sha256()
        for number in range(3 * READ_AHEAD):
            pipeline.feed([digest], memoryview(bytes(BLOCK)), lambda n=number: done.append(n))  # type: ignore[misc]
            assert len(done) >= number + 1 - READ_AHEAD
        pipeline.finish()
    assert done == list(range(3 * READ_AHEAD))


def test_a_mark_is_the_digest_of_all_before_it_and_of_nothing_behind() -> None:
    marks: list[str] = []
    blocks = [bytes([number]) * BLOCK for number in range(3 * READ_AHEAD)]
    own, whole = hashlib.sha256(), hashlib.sha256(b"head")
    with DigestPipeline() as pipeline:
        for block in blocks:
            pipeline.feed([own, whole], memoryview(block), lambda: None)
            pipeline.mark(1, whole, marks.append)
    expected = hashlib.sha256(b"head")
    for block, mark in zip(blocks, marks, strict=True):
        expected.update(block)
        assert mark == expected.hexdigest()
