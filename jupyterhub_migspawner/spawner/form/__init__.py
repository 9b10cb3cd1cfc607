"""The part of the spawn page in which a researcher picks a tier.

Relies on the broker's offers alone, so it looks the same in every renderer and needs no request
(the hub renders the form of a failed named server without one). Promises that every text in it is
escaped, that what cannot start now cannot be picked and says why, and that it works without
JavaScript, with a keyboard and with a screen reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from jupyterhub_migspawner.broker import TierStatus
from jupyterhub_migspawner.policy.wording import hours, listed, minutes, moment

_environment = Environment(
    loader=PackageLoader("jupyterhub_migspawner.spawner.form", "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters["moment"] = moment
_environment.filters["hours"] = hours
_environment.filters["listed"] = listed
_environment.filters["minutes"] = minutes

# The hub's page takes no file of the service's, which there may not be.
_SCRIPT = Markup(
    files("jupyterhub_migspawner.service.pages").joinpath("static/times.js").read_text("utf-8")
)


def preselected(
    offers: Sequence[TierStatus], default: str | None = None, last: str | None = None
) -> str:
    """Return the tier that is picked when the page opens; empty when none can start.

    It is among those that can start now or in a moment.
    What can start now is picked first. Of that, what is held for the person, since it lapses; then
    what they have a grant for, then the server's ``last`` tier, then the ``default`` one.
    """
    ranked = sorted(
        (offer for offer in offers if offer.usable or offer.soon),
        key=lambda offer: (
            not offer.usable,
            offer.held is None,
            offer.grant is None,
            offer.tier.name != last,
            offer.tier.name != default,
            not offer.tier.default,
        ),
    )
    return ranked[0].tier.name if ranked else ""


def render_tiers(
    offers: Sequence[TierStatus],
    *,
    notice: str = "",
    default: str | None = None,
    last: str | None = None,
    service_url: str = "",
    typed: Mapping[str, str] | None = None,
    picked: str = "",
) -> str:
    """Return HTML for the hub's spawn form: one radio button ``tier`` for each offer.

    ``default`` and ``last`` are the person's default tier and the server's last one. A tier that
    needs approval asks for reason and hours, and a full one offers the waiting list.
    ``service_url`` is where the broker's pages are, if there are any; ``typed`` is
    what was filled in beside the tier ``picked`` and could not be used.
    """
    template = _environment.get_template("tiers.html")
    return template.render(
        offers=offers,
        picked=picked or preselected(offers, default, last),
        notice=notice,
        service_url=service_url,
        typed={"tier": picked, **(typed or {})},
        script=_SCRIPT,
        nothing=bool(offers) and not any(offer.usable or offer.soon for offer in offers),
    )
