"""Addresses of the portal."""

from django.urls import path

from web.views import account

urlpatterns = [
    path("sign-in", account.sign_in, name="sign-in"),
    path("sign-out", account.sign_out, name="sign-out"),
]
