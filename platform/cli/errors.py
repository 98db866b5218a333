"""Errors of the command line and the process's exit codes: one number for each thing that a script may branch on."""

from __future__ import annotations

OK = 0
INTERNAL, USAGE, NOT_SIGNED_IN, NOT_FOUND, UNREACHABLE, FAILED = 1, 2, 3, 4, 5, 6
FORBIDDEN, CONFLICT, TOO_MANY, PLATFORM = 7, 8, 9, 10
INTERRUPTED = 130

#: Printed by `cyto help --json` and explained in docs/cli.md.
EXIT_CODES = {
    OK: "It is done.",
    INTERNAL: "The command line itself failed; nothing that you wrote is the cause.",
    USAGE: "What you wrote can't be understood or isn't valid, or a confirmation is missing.",
    NOT_SIGNED_IN: "Not signed in, or the token is expired or revoked.",
    NOT_FOUND: "There is no such thing that you can see.",
    UNREACHABLE: "The platform doesn't answer at this address.",
    FAILED: "The deployment or the run that the command waited for failed or was cancelled.",
    FORBIDDEN: "Your role or the token's scopes don't allow it, or the tenant is suspended.",
    CONFLICT: "It doesn't fit the current state: a name is taken, a quota is used up, nothing is released.",
    TOO_MANY: "Too many attempts; wait.",
    PLATFORM: "Something failed on the platform's side.",
    INTERRUPTED: "You stopped it with Ctrl-C.",
}
_BY_STATUS = {
    400: USAGE, 401: NOT_SIGNED_IN, 403: FORBIDDEN, 404: NOT_FOUND, 409: CONFLICT, 413: USAGE, 422: USAGE,
    429: TOO_MANY, 502: UNREACHABLE, 503: UNREACHABLE, 504: UNREACHABLE,
}  # fmt: skip


def exit_for(status: int) -> int:
    """The exit code for an answer's HTTP status."""
    return _BY_STATUS.get(status, PLATFORM if status >= 500 else USAGE)


class CliError(Exception):
    """``code`` is the error's id, ``exit`` the process's exit code; ``shown`` if JSON tells of it already."""

    def __init__(
        self,
        message: str,
        following: str,
        code: str,
        exit_code: int = USAGE,
        *,
        request: str = "",
        shown: bool = False,
    ) -> None:
        self.message, self.following, self.code = message, following, code
        self.exit, self.request, self.shown = exit_code, request, shown
        super().__init__(message)

    def as_dict(self) -> dict[str, dict[str, str]]:
        """The form that the REST API has for errors."""
        body = {"id": self.code, "message": self.message, "next": self.following}
        return {"error": body | ({"request_id": self.request} if self.request else {})}


def usage(message: str, following: str) -> CliError:
    """What was written can't be understood."""
    return CliError(message, following, "usage", USAGE)
