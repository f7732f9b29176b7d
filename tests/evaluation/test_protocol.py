"""Protocols: how many samples each takes, beside how many real images, and where that departs from its own counts."""

import pytest

from evaluation import protocol
from evaluation.protocol import Plan


@pytest.mark.parametrize(
    ("name", "num_real", "expected"),
    [
        *(("modern", real, (50_000, 50_000)) for real in (50_000, 60_000)),
        ("paper", 10_000, (5_000, 50_000)),
        ("test", 10_000, (10_000, 10_000)),
        # smaller data sets scale them: digits' 1,498 and 299 images
        ("modern", 1498, (1498, 1498)),
        ("paper", 299, (150, 1495)),
        ("test", 299, (299, 299)),
        ("paper", 10, (10, 50)),  # an Inception Score needs ten
    ],
)
def test_the_counts_of_the_protocols(name, num_real, expected):
    assert protocol.plan(name, num_real) == (name, *expected)


@pytest.mark.parametrize(
    ("name", "expected"), [("modern", (5000, 5000)), ("paper", (500, 5000)), ("test", (1000, 1000))]
)
def test_a_given_number_of_samples_stands_for_the_50000(name, expected):
    assert protocol.plan(name, 60_000, num_samples=5000) == (name, *expected)
    assert protocol.plan(name, 60_000, num_samples=5000, available=700)[1:] == tuple(min(700, n) for n in expected)


def test_a_full_protocol_has_no_departures_and_a_scaled_one_names_each():
    assert Plan("modern", 50_000, 50_000).departures(50_000) == []
    assert Plan("paper", 5000, 50_000).departures(10_000) == []
    assert Plan("test", 10_000, 10_000).departures(10_000) == []
    assert Plan("modern", 1498, 1498).departures(1498) == [
        "1,498 samples, not 50,000",
        "1,498 real images, not 50,000",
    ]
    assert Plan("paper", 5000, 1000).departures(8000) == [
        "1,000 samples for the Inception Score, not 50,000",
        "8,000 real images, not 10,000",
    ]
