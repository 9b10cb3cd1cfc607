"""Text from people in the channels that notices go to: shown as it was typed, never acted on.

Chats read markup in what they are sent: links behind other words, mentions that call a whole room,
formatting. Their dialects differ (Slack's ``<!channel>``, Discord's ``<@&role>``, Markdown's
``[x](…)``), an escape that helps in one is shown in another, and Apprise escapes for some of them
only (2.3: nothing for Mattermost and Discord, where a mention in Markdown even becomes a call). So
each character that begins markup is replaced by one that has the same form and no meaning. Mail and
webhooks get the text as it is: mail has no markup but HTML, for which Apprise escapes, and JSON is
escaped by its own rules.
"""

from __future__ import annotations

import re

#: Schemes of Apprise's URLs whose receivers read no markup. All others are taken for chats, also
#: another Apprise, which may send on to one.
PLAIN = frozenset(
    {
        *("mailto", "mailtos", "json", "jsons", "xml", "xmls", "form", "forms", "syslog"),
        *("brevo", "mailgun", "o365", "azure", "postmark", "resend", "sendgrid", "sendpulse"),
        *("ses", "smtp2go", "sparkpost"),
    }
)

#: Longest word; a longer one is cut, so that it widens no page.
MOST_WORD = 120

_ALIKE = str.maketrans(
    {
        "<": "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}",
        ">": "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}",
        "@": "\N{FULLWIDTH COMMERCIAL AT}",
        "[": "\N{FULLWIDTH LEFT SQUARE BRACKET}",
        "]": "\N{FULLWIDTH RIGHT SQUARE BRACKET}",
        "`": "\N{MODIFIER LETTER GRAVE ACCENT}",
        "*": "\N{ASTERISK OPERATOR}",
        "~": "\N{TILDE OPERATOR}",
        "|": "\N{DIVIDES}",
        "#": "\N{FULLWIDTH NUMBER SIGN}",
        "\\": "\N{FULLWIDTH REVERSE SOLIDUS}",
    }
)

#: An underscore inside a word is no markup; names of tiers keep theirs.
_EMPHASIS = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
#: An entity of HTML, which would be a character again.
_ENTITY = re.compile(r"&(?=#?\w+;)")
#: An address of any scheme but the web's: nothing is opened by a click on it.
_ODD_SCHEME = re.compile(
    r"\b(?!https?://)([a-z][a-z0-9+.-]*):(?=//)|\b(javascript|data|vbscript|file|mailto|tel):",
    re.IGNORECASE,
)
_LONG = re.compile(rf"(\S{{{MOST_WORD}}})\S+")


def cut_words(text: str) -> str:
    """Return ``text`` with words of more than :data:`MOST_WORD` characters cut."""
    return _LONG.sub("\\1…", text)


def for_channel(text: str, scheme: str) -> str:
    """Return ``text`` so that a channel of that scheme shows it for what it is.

    Lines stay lines. Addresses of our own are added afterwards.
    """
    if scheme.lower() in PLAIN:
        return text
    text = _ENTITY.sub("\N{FULLWIDTH AMPERSAND}", text)
    text = _ODD_SCHEME.sub(lambda found: (found[1] or found[2]) + "\N{RATIO}", text)
    text = text.translate(_ALIKE)
    return _EMPHASIS.sub("\N{FULLWIDTH LOW LINE}", text)
