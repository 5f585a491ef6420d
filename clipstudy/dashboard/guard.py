"""Who may ask the dashboard, and what a browser may do with its answers.

- A name in ``Host`` that is not on the list is refused: a page elsewhere that makes its own name point to this machine
  (DNS rebinding) cannot read results.
- With a token, a visitor without the cookie gets a form that asks for it. The token is never in an address, so in no
  log and in no history; the cookie is not the token, and is forgotten when the server stops.
- What changes anything must come from the dashboard's own pages, as the browser says (``Origin``, ``Sec-Fetch-Site``).
- The content policy lets a page run its own scripts and fetch from its own server, whatever a name in it says.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import shlex
from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from flask import Flask, Response, make_response, redirect, request

from clipstudy.errors import ClipstudyError

COOKIE = "clipstudy"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
SHORTEST_TOKEN = 16
FORM = """<!doctype html><html lang="en"><meta charset="utf-8"><title>clipstudy</title>
<style>body{font:16px/1.5 system-ui,sans-serif;margin:4rem auto;max-width:26rem}input,button{font:inherit;padding:.3rem}
</style><h1>clipstudy</h1><form method="post" action="/token"><p><label>Token <input name="token" type="password"
autofocus required autocomplete="current-password"></label> <button>Open</button></p></form>
<p>The value of CLIPSTUDY_TOKEN that the dashboard was started with.</p></html>"""


def check(host: str, token: str | None) -> None:
    """
    Raises:
        ClipstudyError: other machines would reach the dashboard, and nothing would keep them out.
    """
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise ClipstudyError(
            f"CLIPSTUDY_TOKEN has {len(token)} characters, expected at least {SHORTEST_TOKEN}. "
            'Make one: export CLIPSTUDY_TOKEN="$(openssl rand -hex 16)"'
        )
    if token is None and not is_loopback(host):
        raise ClipstudyError(
            f"--host {host}: other machines would read your results. Set a token that they must know: "
            'export CLIPSTUDY_TOKEN="$(openssl rand -hex 16)"; or stay on 127.0.0.1 and connect through '
            "`ssh -L 8050:127.0.0.1:8050 …`, or a reverse proxy that asks for a login."
        )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def protect(server: Flask, hosts: Collection[str], token: str | None, scripts: Sequence[str] = ()) -> None:
    """Puts the rules above in front of every answer of ``server``.

    Args:
        hosts: names that ``Host`` may have, without a port; the loopback's are always among them.
        scripts: hashes of the inline scripts that a page may run, as a content policy writes them.
    """
    known = {name.casefold() for name in (*hosts, *LOOPBACK)}
    pass_key = secrets.token_bytes(32)
    cookie = hmac.new(pass_key, (token or "").encode(), hashlib.sha256).hexdigest()
    policy = (
        f"default-src 'none'; script-src 'self' {' '.join(scripts)}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )

    @server.before_request
    def admit() -> Response | None:
        if (name := _name(request.host)) not in known:
            start = f"clipstudy dashboard --allow-host {shlex.quote(name)}"
            return _refuse(403, f"This dashboard does not answer to the name {name!r}. Start it with: {start}")
        if request.method not in ("GET", "HEAD") and not _own(request.host):
            return _refuse(403, "Only the dashboard's own pages may ask for that.")
        if token is None or _same(request.cookies.get(COOKIE, ""), cookie):
            return None
        if _same(request.headers.get("Authorization", ""), f"Bearer {token}"):
            return None
        if request.path == "/token" and request.method == "POST" and _same(request.form.get("token", ""), token):
            welcome = make_response(redirect("/", 303))
            welcome.set_cookie(COOKIE, cookie, httponly=True, samesite="Strict", secure=request.is_secure)
            return welcome
        return make_response(FORM, 401)

    @server.after_request
    def seal(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        return response


def _name(host: str) -> str:
    """``Host`` without its port: a tunnel may give the dashboard another one."""
    try:
        return (urlsplit(f"//{host}").hostname or "").casefold()
    except ValueError:
        return ""


def _own(host: str) -> bool:
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    return site in (None, "same-origin") and (origin is None or origin.partition("://")[2] == host)


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), wanted.encode())


def _refuse(status: int, why: str) -> Response:
    response = make_response(f"{why}\n", status)
    response.mimetype = "text/plain"
    return response
