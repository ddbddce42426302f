"""Cards that move a telephone line between two nodes: one contract, one module each.

To add a device: write its module after ``contract.Card``, and name it here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asha.relay.contract import Card, Run, Settings

DRIVERS = ("rhino", "numato")


def card_for(settings: Settings, run: Run) -> Card:
    """The card's driver. A driver is imported only when its card is used."""
    if settings.driver == "numato":
        from asha.relay.numato import Numato

        return Numato(settings.device, settings.number)
    if settings.driver == "rhino":
        from asha.relay.rhino import Rhino

        return Rhino(settings.device, settings.program, run)
    raise ValueError(f"no driver {settings.driver!r}; there is {', '.join(DRIVERS)}")
