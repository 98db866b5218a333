"""Django settings of the control plane. Every path and port comes from ``infra.config``."""

from __future__ import annotations

import os
from pathlib import Path

from controlplane import external
from infra import config as installation

CONFIG = installation.load()
BASE = Path(__file__).resolve().parents[2]


def _secret_key() -> str:
    """The signing key of sessions: a file that the installer made; tests give it by environment."""
    given = os.environ.get("CYTOPLANE_SECRET_KEY")
    if given:
        return given
    file = CONFIG.secrets / "django.key"
    if file.exists():
        return file.read_text().strip()
    # Only commands that need no sessions (init_secrets, collectstatic) get this far.
    return os.urandom(32).hex()


SECRET_KEY = _secret_key()
DEBUG = False
TLS = bool(CONFIG.portal_tls) or CONFIG.portal_origin.startswith("https://")
# Nodes elsewhere know the agents' listener by names of its own.
_elsewhere = [f"[{name}]" if ":" in name else name for name in CONFIG.outside_names]
ALLOWED_HOSTS = [CONFIG.portal_host, "localhost", "127.0.0.1", "[::1]", *_elsewhere]
_scheme = "https" if TLS else "http"
CSRF_TRUSTED_ORIGINS = [
    f"{_scheme}://{host}:{CONFIG.portal_port}" for host in (CONFIG.portal_host, "localhost", "127.0.0.1")
]
if CONFIG.portal_origin:
    CSRF_TRUSTED_ORIGINS.append(CONFIG.portal_origin)

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "controlplane",
    "tenants",
    "projects",
    "delivery",
    "telemetry",
    "autoscaling",
    "execution",
    "dataplane.planes",
    "cells.provisioning",
    "api",
    "web",
]

MIDDLEWARE = [
    "controlplane.middleware.RequestId",
    "controlplane.middleware.Surface",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "controlplane.middleware.SecurityHeaders",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "controlplane.middleware.Errors",
]

ROOT_URLCONF = "controlplane.urls"
ASGI_APPLICATION = "controlplane.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "web.context.portal",
            ]
        },
    }
]

DATABASES = {"default": external.database(os.environ, CONFIG.postgres_socket_dir)}

REDIS_URL = external.redis_url(os.environ, CONFIG.redis_socket)
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}

AUTH_USER_MODEL = "tenants.User"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
LOGIN_URL = "/sign-in"
LOGIN_REDIRECT_URL = "/"

# The applications domain must not get the portal's cookies: they are host-only, and a __Host-
# cookie (TLS) can't be set by any sibling domain either.
SESSION_COOKIE_NAME = "__Host-session" if TLS else "cytoplane-session"
SESSION_COOKIE_SECURE = TLS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 7 * 24 * 3600
CSRF_USE_SESSIONS = True
CSRF_FAILURE_VIEW = "controlplane.middleware.csrf_failure"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024

STATIC_URL = "/static/"
# An image brings them along.
STATIC_ROOT = Path(os.environ.get("CYTOPLANE_STATIC", CONFIG.home / "static"))
STATICFILES_DIRS = [path for path in [BASE / "web" / "static" / "build"] if path.exists()]

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CELERY_BEAT_SCHEDULE = {
    "pulse": {"task": "controlplane.pulse", "schedule": 5.0},
    "deployments": {"task": "delivery.sweep", "schedule": 5.0},
    "runs": {"task": "delivery.clock", "schedule": 5.0},
    "repositories": {"task": "delivery.pack_repositories", "schedule": 1800.0},
    "places": {"task": "provisioning.sweep", "schedule": 5.0},
    "planes": {"task": "planes.rebuild_all", "schedule": 30.0},
    "autoscaling": {"task": "autoscaling.sweep", "schedule": 15.0},
    "telemetry": {"task": "telemetry.prune", "schedule": 600.0},
    "sessions": {"task": "execution.sweep", "schedule": 15.0},
}
CELERY_BROKER_URL = (
    REDIS_URL.replace("unix://", "redis+socket://") if REDIS_URL.startswith("unix") else REDIS_URL
)

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"redact": {"()": "controlplane.logs.Redact"}},
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["redact"]}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        "httpx": {"level": "WARNING"},
        "pyhelm3": {"level": "ERROR"},
        "django.request": {"level": "ERROR"},
    },
}
