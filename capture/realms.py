"""Realms by the numbers that an operator knows: VLAN identifiers and VXLAN or GENEVE network identifiers.

In: identifiers from the outermost tag to the innermost. Out: the hash that `capture.layers` gives as
`DatagramBatch.realm` to packets inside of them. Reads no packets, and imports no kernels: those take long.
"""

from collections.abc import Iterable

_VLAN = 1 << 24
_VNI = 2 << 24
"""Keep the two kinds of identifiers apart, as REALM_VLAN and REALM_VNI do in the kernels."""


def realm_of_vlans(*vlans: int) -> int:
    """Realm behind these 802.1Q or 802.1ad tags; 0 without any. VLAN 0 is only a priority and no network."""
    return _entered(_VLAN | vlan for vlan in vlans if vlan)


def realm_of_vni(vni: int, *vlans: int) -> int:
    """Realm inside a VXLAN or GENEVE network, behind the tags that stand in it; what carried the tunnel is left."""
    return _entered([_VNI | vni, *(_VLAN | vlan for vlan in vlans if vlan)])


def _entered(identifiers: Iterable[int]) -> int:
    """What the kernel `enter_realm` does with one identifier after the other."""
    realm = 0
    for identifier in identifiers:
        mixed = realm ^ identifier
        for _ in range(2):
            mixed = ((mixed >> 16 ^ mixed) * 0x45D9F3B) & 0xFFFFFFFF
        realm = mixed >> 16 ^ mixed or 1
    return realm


OWN_PORTS = realm_of_vlans(4095)
"""Of what comes to media ports of this process: it may be seen on an interface too, with the same addresses, and is to
be told from that. No wire has VLAN 4095, which is reserved (IEEE 802.1Q)."""
