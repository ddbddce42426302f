"""Cards that move a telephone line between two nodes: one contract, one module each.

To add a device: write its module as ``contract.Card`` says, with a function ``card``, and name
it in ``KINDS``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.relay.contract import Card, Run, Settings

# Each module's name, and what a person calls the device.
KINDS = {
    "rhino": "Rhino 1SPF card",
    "numato": "Numato USB relay module",
}
DRIVERS = tuple(KINDS)

# Those with more than one relay, which RELAYNUMBER tells apart.
NUMBERED = ("numato",)


def card_for(settings: Settings, run: Run) -> Card:
    """The card's driver, imported only when its card is used. Raises ValueError."""
    if settings.driver not in KINDS:
        raise ValueError(f"no driver {settings.driver!r}; there is {', '.join(DRIVERS)}")
    from importlib import import_module

    made: Card = import_module(f"asha.relay.{settings.driver}").card(settings, run)
    return made
