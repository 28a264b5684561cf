"""JSON values read as engines read them, compared with pydantic itself."""

import json

import pytest
from msgspec import Raw
from pydantic import TypeAdapter, ValidationError

from gateway.request.lax_json import LONGEST_NUMBER, read_bool, read_int

VALUES: list[object] = [
    *(0, 1, 2, -1, 2000, 16_385, 10**25, 1.0, 2.0, 2.5, 1e3, True, False, None, [2], {}),
    *("2000", " 2 ", "2_0", "+3", "-5.0", "02", "2.0", "2.", ".0", "1e3", "٣", "0002.000", "__2"),
    *("2_", "2_.0", "1_000.0", "0x1", "", " ", "\n3", "1" * LONGEST_NUMBER, "1" * 5000),
    *("0" * 4400 + "128", " " * 5000 + "128", "-" + "0" * 5000 + "5", "0_" * 3000 + "5", "0_1"),
    *("0_", "_0", "+_0", "128." + "0" * 5000, "1_" * 4299 + "1", "1_" * 4300 + "1"),
    *("1" + "0" * 4299 + ".0", "1" + "0" * 4300 + ".0", "0" * 5000 + "x", "0" * 5000),
    *("yes", "Yes", "YES", "y", "on", "ON", "t", "true", "TRUE", "1", "0", "no", "off", "f"),
    *(" true", "yes\n", "\uff11", "truth"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:12])
def test_values_are_read_as_pydantic_reads_them(value: object) -> None:
    """What it rejects stands for no number, and not for true."""
    raw = Raw(json.dumps(value).encode())
    assert read_int(raw) == _validated(TypeAdapter(int), value, None)
    assert read_bool(raw) == _validated(TypeAdapter(bool), value, False)


def _validated(adapter: TypeAdapter[int], value: object, otherwise: object) -> object:
    try:
        return adapter.validate_python(value)
    except ValidationError:
        return otherwise
