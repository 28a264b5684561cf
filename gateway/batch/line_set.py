"""Set of line numbers, a bit for each."""

from array import array
from collections.abc import Iterable


class LineSet:
    """Which lines of a batch have something; numbers are from 1 to `most`."""

    def __init__(self, most: int) -> None:
        self._bits = bytearray(most // 8 + 1)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        return bool(self._bits[number >> 3] >> (number & 7) & 1)

    def add(self, number: int) -> None:
        """Add a line; one that is there already changes nothing."""
        if number not in self:
            self._bits[number >> 3] |= 1 << (number & 7)
            self._count += 1

    def update(self, numbers: Iterable[int]) -> None:
        """Add several lines."""
        for number in numbers:
            self.add(number)


def pack_lines(numbers: Iterable[int]) -> bytes:
    """Numbers of lines as bytes, four for each, in order."""
    packed = array("I", sorted(numbers))
    return packed.tobytes()


def unpack_lines(data: bytes) -> "array[int]":
    """Numbers of lines from bytes.

    Raises:
        ValueError: these are not whole numbers.
    """
    numbers = array("I")
    numbers.frombytes(data)
    return numbers
