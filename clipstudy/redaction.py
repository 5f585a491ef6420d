"""What is printed, logged or recorded, without the credentials in it."""

from __future__ import annotations

import logging
import os
import re
from urllib.parse import unquote

from clipstudy.errors import printable

_PASSWORD = re.compile(r"""(\w+://[^:\s"']*):[^\s"']*@""")
#: A user without a password: of a database it is a name, of a page it may be a token.
_USER = re.compile(r"""(https?://)[^:/?#\s"'@]+@""", re.IGNORECASE)
#: Names of keys; those below add some of their own, and close the group.
_KEY = r"""(?<![\w-])((?:ssl)?password|passwd|pwd|(?:[\w-]*_)?secret(?:_?access)?(?:_?key)?|(?:x-)?api[-_]?key"""
_KEY += r"""|account[-_]?key|private[-_]?key|(?:access|auth|security)[-_]?token"""
#: In a query, a connection string or a list of keywords.
_SECRET = re.compile(
    _KEY + r"""|token|sig|signature|x-amz-(?:signature|credential|security-token))=('[^']*'|"[^"]*"|["']?[^&\s"']*)""",
    re.IGNORECASE,
)
#: In a header, a line of a configuration or a printed dictionary.
_TOLD = re.compile(_KEY + r""")(["']?\s*:\s*|["']?\s+=\s*|["']\s*=\s*)('[^']*'|"[^"]*"|[^\s,;"'}]+)""", re.IGNORECASE)
_HEADER = re.compile(r"""(authorization["']?\s*[:=]\s*["']?\w+\s+)[^\s"']+""", re.IGNORECASE)
_BEARER = re.compile(r"\b(bearer\s+)[\w.~+/-]{8,}=*", re.IGNORECASE)
_TOKENS = re.compile(r"\b(hf_|gh[opsur]_|github_pat_)\w{8,}")
#: Variables that are a credential as a whole, not where one lies.
_CREDENTIAL = re.compile(r"(TOKEN|PASSWORD|PASSWD|SECRET|KEY|CREDENTIALS?)$", re.IGNORECASE)
#: The password in a URL that is a variable's whole value: there it ends at the last @.
_OF_URL = re.compile(r"^\w[\w+.-]*://[^:/?#@]*:(.+)@", re.DOTALL)
_SHORTEST_CREDENTIAL = 8  #: characters: shorter ones are words of other texts


def redact(text: str) -> str:
    """``text`` with every credential in it replaced: the password of a URL, the values of keys such as ``password=``,
    the ``Authorization`` of a request, tokens of the Hub and of GitHub, the value of each environment variable that is
    one, and what stands for one in the URL that another holds, whatever it is made of.

    A password may hold ``/``, ``:`` or ``@``, so all up to the last ``@`` before white space or a quote is taken for
    one: rather too much is hidden than too little.
    """
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_CREDENTIAL and _CREDENTIAL.search(name):
            text = text.replace(value, "***")
        if of_url := _OF_URL.search(value):
            for written in {of_url[1], unquote(of_url[1]), repr(of_url[1])[1:-1]}:
                text = text.replace(f":{written}@", ":***@")
    text = _TOKENS.sub(r"\1***", _BEARER.sub(r"\1***", _HEADER.sub(r"\1***", text)))
    text = _USER.sub(r"\1***@", _TOLD.sub(r"\1\2***", text))
    # A value that holds an @ leaves one behind, since a password before it may end there.
    text = _SECRET.sub(lambda m: f"{m[1]}=***{'@' if '@' in m[2] else ''}", text)
    return _PASSWORD.sub(r"\1:***@", text)


class RedactedFormatter(logging.Formatter):
    """Log lines, tracebacks included, without credentials, and without what steers a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """As :class:`logging.Formatter`."""
        return printable(redact(super().format(record)))
