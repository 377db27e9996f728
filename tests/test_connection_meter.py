"""`ConnectionMeter`, which counts the new connections of each address."""

from __future__ import annotations

from django.test import SimpleTestCase, override_settings

from backend.server.connections import PERIOD_S, ConnectionMeter


@override_settings(CONNECTIONS_PER_S=1)
class ConnectionMeterTests(SimpleTestCase):
    def setUp(self) -> None:
        self.meter = ConnectionMeter()

    def admitted(self, *addresses: str) -> list[bool]:
        return [self.meter.admits(address) for address in addresses]

    def test_the_connections_of_an_address_are_bounded(self) -> None:
        self.assertEqual(self.admitted(*["192.0.2.1"] * 4, "192.0.2.2"), [True, True, True, False, True])

    def test_an_ipv6_network_counts_as_one_address(self) -> None:
        addresses = [f"2001:db8:1:2::{number}" for number in range(4)]
        self.assertEqual(self.admitted(*addresses, "2001:db8:1:3::1"), [True, True, True, False, True])

    def test_the_bound_is_per_period(self) -> None:
        self.admitted(*["192.0.2.1"] * 4)
        self.meter.began_at -= PERIOD_S
        self.assertEqual(self.admitted(*["192.0.2.1"] * 4), [True, True, True, False])

    @override_settings(TLS_PROXY=True)
    def test_all_connections_of_a_proxy_are_admitted(self) -> None:
        self.assertEqual(self.admitted(*["192.0.2.1"] * 4), [True] * 4)
