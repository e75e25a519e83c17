"""Which addresses a tool may connect to: public ones, and private ones where an operator says so.

An IPv6 address that stands for an IPv4 address is taken for that one, or refused.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address

_METADATA = frozenset(
    {
        "169.254.169.254",  # AWS, Google, Azure and most others
        "169.254.170.2",  # credentials of AWS tasks
        "169.254.170.23",  # credentials of AWS pods
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure's host, which is a public address
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # credentials of AWS pods
        "fd20:ce::254",  # Google
        "fd00:c1::a9fe:a9fe",  # Oracle
        "fd00:42::42",  # Scaleway
    }
)
"""Where clouds give credentials to whoever asks from the machine."""

_PRIVATE_4 = [IPv4Network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "100.64.0.0/10")]
_SPECIAL_4 = [
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host; connects to it
        "169.254.0.0/16",  # link-local
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # automatic multicast tunnelling
        "192.88.99.0/24",  # relays of 6to4
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
]
_PRIVATE_6 = [IPv6Network(network) for network in ("::1/128", "fc00::/7")]
_UNICAST_6 = IPv6Network("2000::/3")
"""All that is given out for use in public (IANA); what is not in it is refused without a list."""

_SPECIAL_6 = [
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address, through whatever relay
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
]
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""The middle of an address that stands for an IPv4 address within a site (RFC 5214)."""


def embedded(address: Address) -> Address:
    """Return the IPv4 address that a mapped or translated (RFC 6052) one stands for, else the address."""
    if isinstance(address, IPv6Address) and (address in _MAPPED or address in _NAT64):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def refused_address(address: Address, *, private: bool) -> str:
    """Return why nothing connects to an address, "" if it may; `private` ones only where that is said.

    Link-local addresses, and those where clouds give out credentials, are never connected to.
    """
    found = embedded(address)
    if str(found) in _METADATA:
        return f"{address} is where a cloud gives out credentials"
    if isinstance(found, IPv4Address):
        is_private, is_special = any(found in n for n in _PRIVATE_4), any(found in n for n in _SPECIAL_4)
    else:
        is_private = any(found in network for network in _PRIVATE_6)
        isatap = (int(found) >> 32) & 0xFFFFFFFF in _ISATAP
        is_special = isatap or (not is_private and (found not in _UNICAST_6 or any(found in n for n in _SPECIAL_6)))
    if getattr(found, "scope_id", None):
        return f"{address} has a zone"
    if is_special:
        return f"{address} is no public address"
    if is_private and not private:
        return f"{address} is a private address, and no entry says private=True"
    return ""
