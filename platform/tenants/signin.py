"""Signing in with email and password, slowed down for guessers."""

from __future__ import annotations

from django.contrib.auth.hashers import check_password, make_password
from django.core.cache import cache

from controlplane.errors import CytoplaneError
from tenants.models import User

WINDOW_SECONDS = 15 * 60
ATTEMPTS_PER_ACCOUNT = 10
ATTEMPTS_PER_ADDRESS = 50
#: Compared against when the account doesn't exist, so that both cases take the same time.
_NOBODY = make_password("nobody has this password")


def verify(email: str, password: str, address: str) -> User:
    """The user, or `sign-in-failed` / `too-many-attempts`. ``address`` is the client's."""
    email = email.strip().lower()
    counters = [
        (f"signin:account:{email}", ATTEMPTS_PER_ACCOUNT),
        (f"signin:address:{address}", ATTEMPTS_PER_ADDRESS),
    ]
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
    cache.delete(counters[0][0])
    return user
