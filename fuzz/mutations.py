"""Random variations of real inputs, for runs without coverage guidance."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

_LARGEST_REPETITION = 4096

_INTERESTING = (
    b"",
    b"\0",
    b"\xff",
    b"\r\n",
    b"\n",
    b'"',
    b"\\",
    b"\\u0000",
    b"[",
    b"{",
    b"}",
    b"..",
    b"*",
    b"%00",
    b"-1",
)


@st.composite
def mutated(draw: st.DrawFn, inputs: Sequence[bytes]) -> bytes:
    """An input with a few edits: bytes replaced, another input inserted, or a part repeated many times."""
    data = draw(st.sampled_from(inputs))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 64)))
        data = data[:start] + draw(_replacements(data[start:end], inputs)) + data[end:]
    return data


def _replacements(part: bytes, inputs: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    repetitions = st.integers(1, max(1, _LARGEST_REPETITION // max(1, len(part))))
    return st.one_of(
        st.sampled_from(_INTERESTING),
        st.binary(max_size=8),
        repetitions.map(lambda times: part * times),
        st.sampled_from(inputs),
    )
