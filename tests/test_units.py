import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsollama.units import GB, format_bytes, format_duration

STEPS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def test_a_gb_is_a_billion_bytes() -> None:
    assert GB == 1_000_000_000


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (17, "17 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_234_567, "1.2 MB"),
        (99_949_999, "99.9 MB"),
        (99_950_000, "100 MB"),
        (999_499_999, "999 MB"),
        (1_000_000_000, "1.0 GB"),
        (49_800_000_000, "49.8 GB"),
        (251 * GB, "251 GB"),
        (1_500_000_000_000, "1.5 TB"),
        (12_345_000_000_000_000, "12345 TB"),
        (1536.5, "1.5 kB"),
    ],
)
def test_bytes_read_in_powers_of_ten(count: float, text: str) -> None:
    assert format_bytes(count) == text


# Not "1000 MB".
@pytest.mark.parametrize(
    ("count", "text"), [(999_500, "1.0 MB"), (999_999_999, "1.0 GB"), (999.9, "1.0 kB")]
)
def test_no_unit_is_counted_to_a_thousand(count: float, text: str) -> None:
    assert format_bytes(count) == text


@given(st.integers(0, 10**15))
def test_the_text_is_within_half_a_digit_of_the_bytes(count: int) -> None:
    number, unit = format_bytes(count).split()
    digit = 0.1 if "." in number else 1
    assert abs(float(number) * STEPS[unit] - count) <= 0.5001 * digit * STEPS[unit]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.8, "0.8 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (42, "42 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (303, "5 min 03 s"),
        (3599.6, "1 h 00 min"),
        (3600, "1 h 00 min"),
        (39_900, "11 h 05 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_a_duration_reads_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
