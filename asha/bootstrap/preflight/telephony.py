"""What preflight asks of the telephone system: whether it is tied to one node's address."""

from __future__ import annotations

from collections.abc import Iterator

from asha.asterisk.talk import sip_addresses
from asha.bootstrap.preflight.report import CheckContext
from asha.bootstrap.steps import sark
from asha.finding import Finding, error, warning

EXTERNAL = ("external_media_address", "external_signaling_address", "externaddr")
RESTART = "systemctl restart asterisk; in the cluster: crm resource restart p_asterisk"


def own_address(look: CheckContext) -> Iterator[Finding]:
    """SIP is bound to no address, and tells none, that stays behind with this node.

    Asterisk is asked where it runs. The router's public address is right on both nodes.
    """
    virtual = look.site.virtual_address
    for one in sip_addresses.ask() if look.facts.root else ():
        if one.address == virtual or not look.facts.nic_with(one.address):
            continue
        if one.key in EXTERNAL:
            yield warning(
                f"{one}: is this node's own address: after a switch telephones and providers "
                "would send to the wrong node",
                f"take {one.key} out of {one.file} (what the active node sends comes from the "
                f"virtual address by itself), or give the router's public address; then {RESTART}")
        else:
            yield warning(
                f"{one}: SIP is bound to this node's own address: it is not there on the other "
                "node, and telephones that call the virtual address get no answer",
                f"{one.key}=0.0.0.0 in {one.file}, the port as it is; then {RESTART}")
    yield from _of_sark(look)


def _of_sark(look: CheckContext) -> Iterator[Finding]:
    address = sark.static_address(look.machine)
    virtual = look.site.virtual_address
    hint = ("empty the static address in SARK's panel and commit; a fixed address of the node "
            "belongs into /etc/network/interfaces")
    if address and address == virtual:
        yield error(f"STATICIPV4={address} in SARK's database: SARK takes the virtual address at "
                    "boot, also on the node that must not have it", hint)
    elif address:
        yield warning(f"STATICIPV4={address} in SARK's database: SARK takes this address at boot "
                      "and binds SIP to it, on whichever node has the data", hint)
