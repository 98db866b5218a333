"""One catalogue of what can go wrong, for API, CLI, git output, portal and documentation.

An error is a code (stable, what a client branches on), a sentence for a person and the next step.
Raise ``CytoplaneError("quota-components", limit=5)``: the words are filled from the catalogue, so
that the same failure reads the same wherever it surfaces.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A catalogue entry: HTTP status, sentence and next step (``str.format`` templates)."""

    status: int
    message: str
    next: str


CATALOGUE: dict[str, Entry] = {
    # Who you are, what you may.
    "not-signed-in": Entry(401, "You are not signed in.", "Sign in, or send a token: `cyto login`."),
    "token-invalid": Entry(401, "The token is unknown, expired or revoked.", "Make a new one: `cyto login`."),
    "sign-in-failed": Entry(401, "Email and password don't match an account.", "Check both and try again."),
    "too-many-attempts": Entry(
        429,
        "Too many failed sign-ins for this account or address.",
        "Wait {minutes} minutes, then try again.",
    ),
    "not-found": Entry(
        404, "There is no such {kind} that you can see.", "Check the name, or ask its owner for access."
    ),
    "forbidden": Entry(403, "Your role ({role}) may not {action}.", "Ask an owner or admin of {tenant}."),
    "token-scope": Entry(
        403, "This token's scopes don't include `{scope}`.", "Make a token with the scope `{scope}`."
    ),
    "tenant-suspended": Entry(
        403, "The tenant {tenant} is suspended; nothing can be changed.", "Ask the platform's admins."
    ),
    "csrf": Entry(403, "The form was not sent from this site.", "Reload the page and try again."),
    # What you wrote.
    "invalid": Entry(422, "{message}", "Correct {field} and send it again."),
    "scales-itself": Entry(
        422,
        "{component} follows its load between {least} and {most} replicas.",
        "Stay within that, or change `replicas` in cytoplane.yaml and push.",
    ),
    "invalid-name": Entry(
        422,
        "`{name}` can't be a name: use lower-case letters, digits and single hyphens, at most 40.",
        "Choose another name.",
    ),
    "name-taken": Entry(409, "There already is a {kind} named `{name}`.", "Choose another name."),
    "confirmation-missing": Entry(
        422, "Destroying {kind} `{name}` must be confirmed by its name.", "Repeat it with `--confirm {name}`."
    ),
    "host-taken": Entry(
        409,
        "The host name `{host}` is claimed by another endpoint.",
        "Choose another `host` in cytoplane.yaml.",
    ),
    "last-owner": Entry(409, "{email} is the last owner of {tenant}.", "Make somebody else an owner first."),
    "end-unknown": Entry(404, "{message}", "{following}"),
    "method": Entry(405, "{method} isn't possible here.", "Use one of {allowed}."),
    "too-large": Entry(413, "The request is larger than {limit}.", "Send less."),
    "branch-moved": Entry(
        409,
        "Another push to `{branch}` went first and serves.",
        "Fetch it, merge or rebase, and push again.",
    ),
    "conflict": Entry(409, "{message}", "Look at the current state and try again."),
    "deny-doubtful": Entry(
        409,
        "{network} {why}, so denying it may not be what you mean.",
        "Deny a smaller network, or repeat it with `--force`.",
    ),
    # Quotas.
    "quota": Entry(
        409,
        "The plan of {tenant} allows {limit} {what}; this would be {wanted}.",
        "Remove something or ask the platform's admins for a larger plan.",
    ),
    # Specification and builds.
    "specification": Entry(422, "{message}", "{hint}"),
    "source-rejected": Entry(422, "The source can't be accepted: {reason}.", "Change that and push again."),
    "no-buildable-source": Entry(
        422,
        "Nothing to build was found: no Dockerfile, requirements.txt, pyproject.toml or index.html.",
        "Add one of them, or set `path` in cytoplane.yaml.",
    ),
    "build-failed": Entry(
        422,
        "The build of {component} failed (exit code {code}).",
        "Read the last lines above, mend it, push again.",
    ),
    "build-refused": Entry(
        422,
        "The builder's result can't be taken: {reason}.",
        "Push again; if it stays, tell the platform's admins: the builder may be broken or lie.",
    ),
    "build-timeout": Entry(
        422,
        "The build took longer than {limit} s.",
        "Make it shorter or ask for a larger limit, then push again.",
    ),
    "build-disk": Entry(
        422,
        "The build filled more than {limit} MiB of disk.",
        "Make what it fetches and writes smaller, then push again; its caches were emptied.",
    ),
    "builder-lost": Entry(503, "The builder went away during the build.", "Push again; nothing was changed."),
    # Deployments.
    "process-exited": Entry(
        422,
        "The process of {component} ended with code {code} before it was ready.",
        "Read its last lines above; `cyto logs {component}` has all of them.",
    ),
    "probe-failed": Entry(
        422,
        "{component} started but its check ({probe}) didn't pass: {answer}.",
        "Make it listen on $PORT and answer the check, or correct `health` in cytoplane.yaml.",
    ),
    "start-failed": Entry(422, "{component} couldn't be started: {reason}.", "Correct it and deploy again."),
    "deployment-timeout": Entry(
        504, "The deployment wasn't ready within {limit} s.", "Look at `cyto deployments` and `cyto logs`."
    ),
    "deployment-cancelled": Entry(409, "The deployment was cancelled.", "Deploy again when you are ready."),
    "deployment-superseded": Entry(
        409,
        "A newer push took this one's place before it began.",
        "Nothing to do; the newer one is deployed.",
    ),
    "plane-offline": Entry(
        503,
        "The data plane {plane} is offline since {since}.",
        "It catches up when it returns; try again then.",
    ),
    "cluster-unreachable": Entry(
        503, "The cluster can't be reached: {reason}.", "Check the address in the kubeconfig and try again."
    ),
    "cluster-refused": Entry(
        422,
        "The cluster can't be used: {reason}.",
        "Correct the kubeconfig or the rights of its user and try again.",
    ),
    "runs-full": Entry(
        409,
        "{limit} runs go on at once in {cell}, which is the most.",
        "Wait for one to end, or cancel one: `cyto runs`.",
    ),
    "runs-paced": Entry(
        429,
        "{tenant} has begun {limit} runs within ten minutes, which is the most.",
        "Wait a few minutes. What is short and frequent fits into one run.",
    ),
    "job-failed": Entry(
        422,
        "The job {component} failed: {reason}",
        "Read its last lines above; what served still serves. Mend it and push again.",
    ),
    "nothing-released": Entry(409, "Nothing has been released in {cell} yet.", "Push the project first."),
    # Ours.
    "unavailable": Entry(503, "A part of the platform is not reachable: {part}.", "Try again in a moment."),
    "internal": Entry(500, "Something failed on our side.", "Try again; if it stays, report the request id."),
    "certificate-refused": Entry(
        401,
        "The client certificate is missing, unknown, expired or revoked.",
        "Renew it, or enrol the node again.",
    ),
    "node-revoked": Entry(
        403,
        "The node {node} was revoked.",
        "Take it out of the cluster and add it anew, or have a platform admin make a token for it.",
    ),
    "node-tokens-paced": Entry(
        429,
        "The controller of {plane} has asked for too many tokens within an hour.",
        "Look at the nodes that can't enrol; it goes on by itself.",
    ),
    "enrolment-refused": Entry(
        403, "The enrolment token is unknown, used or expired.", "Make a new one: `cyto planes token`."
    ),
}


class CytoplaneError(Exception):
    """A failure that a person is told about.

    Parameters fill the catalogue's templates. ``code`` must be in ``CATALOGUE``.
    """

    def __init__(self, code: str, /, **parameters: object) -> None:
        entry = CATALOGUE[code]
        self.code = code
        self.status = entry.status
        self.message = entry.message.format_map(_Blank(parameters))
        self.next = entry.next.format_map(_Blank(parameters))
        self.parameters = parameters
        super().__init__(f"{code}: {self.message}")

    def as_dict(self, request_id: str = "") -> dict:
        """The error as API and portal show it."""
        body = {"id": self.code, "message": self.message, "next": self.next}
        if request_id:
            body["request_id"] = request_id
        return {"error": body}


class _Blank(dict):
    """Template parameters; one that is missing shows as its name instead of hiding the error."""

    def __missing__(self, key: str) -> str:
        return f"<{key}>"


def not_found(kind: str) -> CytoplaneError:
    """The one answer for what doesn't exist and for what is somebody else's."""
    return CytoplaneError("not-found", kind=kind)
