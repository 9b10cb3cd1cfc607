"""The part of the spawn page in which a researcher picks a tier.

Relies on the broker's offers alone, so it looks the same whoever renders it and needs no request
(the hub renders the form of a failed named server without one). Promises that every text in it is
escaped, that what cannot start now cannot be picked and says why, and that it works without
JavaScript, with a keyboard and with a screen reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jinja2 import Environment, PackageLoader

from jupyterhub_migspawner.broker import TierOffer

_environment = Environment(
    loader=PackageLoader("jupyterhub_migspawner.form", "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)


def preselected(offers: Sequence[TierOffer], default: str | None = None) -> str:
    """The tier that is picked when the page opens: the default one where it can start now."""
    usable = [offer.tier for offer in offers if offer.usable]
    for tier in usable:
        if tier.name == default:
            return tier.name
    for tier in usable:
        if tier.default:
            return tier.name
    return usable[0].name if usable else ""


def render_tiers(
    offers: Sequence[TierOffer],
    *,
    notice: str = "",
    default: str | None = None,
    service_url: str = "",
    typed: Mapping[str, str] | None = None,
    picked: str = "",
) -> str:
    """HTML for the hub's spawn form: one radio button ``tier`` for each offer.

    A tier that needs approval asks for reason and hours, and a full one offers the waiting list.
    ``service_url`` is where the broker's pages are, if there are any; ``typed`` is
    what was filled in beside the tier ``picked`` and could not be used.
    """
    template = _environment.get_template("tiers.html")
    return template.render(
        offers=offers,
        picked=picked or preselected(offers, default),
        notice=notice,
        service_url=service_url,
        typed={"tier": picked, **(typed or {})},
        nothing=bool(offers) and not any(offer.usable for offer in offers),
    )
