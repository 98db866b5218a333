"""Signing in with email and password, slowed down for guessers.

A guesser is held back where it guesses from: at one address for one account, and at one address for
all of them. So nobody locks somebody else out. Guessing an account from many addresses is bounded for
the account as a whole. An account that was signed in to from an address before is known there: only
guesses at it from that address count then.
"""

from __future__ import annotations

import hashlib
import ipaddress

from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password
from django.core.cache import cache
from django.http import HttpRequest

from controlplane.errors import CytoplaneError
from tenants.models import User

WINDOW_SECONDS = 15 * 60
ATTEMPTS_PER_PAIR = 10
ATTEMPTS_PER_ADDRESS = 50
#: From all unknown addresses together.
ATTEMPTS_PER_ACCOUNT = 200
#: How long an address stays known to an account after it was signed in from there.
KNOWN_SECONDS = 60 * 24 * 3600
#: Compared against when the account doesn't exist, so that both cases take the same time.
_NOBODY = make_password("nobody has this password")


def address_of(request: HttpRequest) -> str:
    """The client's address.

    The portal listens on loopback. Behind a TLS proxy every request is the proxy's, which says whose it
    was at the end of X-Forwarded-For; what stands before that the client may have made up.
    """
    forwarded = request.headers.get("X-Forwarded-For", "") if settings.TLS else ""
    try:
        return str(ipaddress.ip_address(forwarded.rpartition(",")[2].strip()))
    except ValueError:
        return request.META.get("REMOTE_ADDR", "")


def verify(email: str, password: str, address: str) -> User:
    """The user, or `sign-in-failed` / `too-many-attempts`. ``address`` is the client's."""
    email = email.strip().lower()
    # Whatever somebody typed becomes a key of one form and length.
    account = hashlib.sha256(email.encode(errors="replace")).hexdigest()
    pair, known = f"signin:pair:{account}:{address}", f"signin:known:{account}:{address}"
    counters = [(pair, ATTEMPTS_PER_PAIR)]
    if not cache.get(known):
        counters.append((f"signin:address:{address}", ATTEMPTS_PER_ADDRESS))
        counters.append((f"signin:account:{account}", ATTEMPTS_PER_ACCOUNT))
    for key, limit in counters:
        if cache.get(key, 0) >= limit:
            raise CytoplaneError("too-many-attempts", minutes=WINDOW_SECONDS // 60)
    user = User.objects.filter(email=email, is_active=True).first()
    matches = check_password(password, user.password if user else _NOBODY)
    if user is None or not matches:
        for key, _ in counters:
            cache.add(key, 0, WINDOW_SECONDS)
            cache.incr(key)
        raise CytoplaneError("sign-in-failed")
    cache.delete(pair)
    cache.set(known, 1, KNOWN_SECONDS)
    return user
