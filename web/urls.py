"""Addresses of the portal. What isn't a tenant's is below ``-`` or ``admin``, which no tenant can be called."""

from django.urls import path

from web.views import account, admin, cell, configuration, deployments, edge, home, logs, members, palette, why

_CELL = "<slug:tenant>/<slug:project>/<slug:environment>"

urlpatterns = [
    path("", home.index, name="home"),
    path("sign-in", account.sign_in, name="sign-in"),
    path("sign-out", account.sign_out, name="sign-out"),
    path("-/palette", palette.find),
    path("-/tokens", account.tokens),
    path("-/tokens/<int:number>/revoke", account.revoke_token),
    path("admin", admin.tenants),
    path("admin/tenants/<slug:tenant>", admin.tenant),
    path("admin/tenants/<slug:tenant>/state", admin.set_state),
    path("admin/users", admin.create_user),
    path("admin/planes", admin.planes),
    path("admin/edge", edge.denied),
    path("admin/edge/allow", edge.allow),
    path("admin/audit", admin.audit),
    path("<slug:tenant>", home.tenant),
    path("<slug:tenant>/-/new", home.new_project),
    path("<slug:tenant>/-/why", why.why),
    path("<slug:tenant>/-/members", members.members),
    path("<slug:tenant>/-/members/remove", members.remove),
    path("<slug:tenant>/-/usage", members.usage),
    path("<slug:tenant>/-/audit", members.audit),
    path("<slug:tenant>/<slug:project>", home.project),
    path(_CELL, cell.page),
    path(f"{_CELL}/events", cell.events),
    path(f"{_CELL}/components/<slug:component>", cell.component),
    path(f"{_CELL}/components/<slug:component>/scale", cell.scale),
    path(f"{_CELL}/deployments", deployments.listing),
    path(f"{_CELL}/deployments/<int:number>", deployments.page),
    path(f"{_CELL}/deployments/<int:number>/events", deployments.events),
    path(f"{_CELL}/deployments/<int:number>/log.txt", deployments.text),
    path(f"{_CELL}/deployments/<int:number>/cancel", deployments.cancel),
    path(f"{_CELL}/deployments/<int:number>/retry", deployments.retry),
    path(f"{_CELL}/releases", deployments.releases),
    path(f"{_CELL}/releases/<int:number>/rollback", deployments.rollback),
    path(f"{_CELL}/configuration", configuration.page),
    path(f"{_CELL}/logs", logs.page),
    path(f"{_CELL}/logs/events", logs.events),
    path(f"{_CELL}/settings", cell.settings_page),
    path(f"{_CELL}/settings/strict", cell.strict),
    path(f"{_CELL}/settings/destroy", cell.destroy),
]
