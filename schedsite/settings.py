"""Every setting, from the environment (`.env` is read if present). README has the table.

A refusal is an ImproperlyConfigured with one sentence that names the setting and the cure; the
entry points print that sentence instead of a stack.
"""

import warnings
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

from registry.logs import configure_logs

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"

env = environ.Env()
if (BASE_DIR / ".env").is_file():
    environ.Env.read_env(BASE_DIR / ".env")


def _integer(name: str, default: int) -> int:
    try:
        return int(env.str(name, default=str(default)))
    except ValueError:
        raise ImproperlyConfigured(f"{name} is not a whole number; try {default}") from None


def _positive(name: str, default: int) -> int:
    value = _integer(name, default)
    if value < 1:
        raise ImproperlyConfigured(f"{name} is {value}; it must be at least 1; try {default}")
    return value


def _choice(name: str, default: str, *choices: str) -> str:
    value: str = env.str(name, default=default)
    if value not in choices:
        raise ImproperlyConfigured(f"{name} is '{value}'; it must be {' or '.join(choices)}")
    return value


def _boolean(name: str, *, default: bool) -> bool:
    value = env.str(name, default=str(default)).strip().lower()
    if value in ("true", "1", "yes", "on"):
        return True
    if value in ("false", "0", "no", "off", ""):
        return False
    raise ImproperlyConfigured(f"{name} is '{value}'; it must be true or false")


def _database(default: str) -> dict[str, Any]:
    with warnings.catch_warnings(action="ignore"):  # of what is refused below
        found: dict[str, Any] = env.db("DATABASE_URL", default=default)
    if not found.get("ENGINE"):
        raise ImproperlyConfigured(
            "DATABASE_URL is not a database address; it looks like"
            " postgres://user:password@host/name or sqlite:////absolute/path"
        )
    return found


# Django

DEBUG = _boolean("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="insecure-for-debugging-only" if DEBUG else "")
if not SECRET_KEY:
    raise ImproperlyConfigured(
        "SECRET_KEY is not set; set it to a long random text in the environment or in .env"
        " (or set DEBUG=true on a machine of your own)"
    )
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "registry",
    "pools",
    "routing",
    "ninja",  # its page of the API has its scripts here, and not elsewhere
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "schedsite.security.security_headers",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "schedsite.urls"
ASGI_APPLICATION = "schedsite.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {"default": _database(f"sqlite:///{VAR_DIR / 'db.sqlite3'}")}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # Instances and the pool mirror write the same file.
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"
STATIC_ROOT.mkdir(parents=True, exist_ok=True)  # WhiteNoise warns of a missing one.
WHITENOISE_USE_FINDERS = True
HTTPS_ONLY = _boolean("HTTPS_ONLY", default=False)
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _boolean("SECURE_COOKIES", default=HTTPS_ONLY)
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Strict" if HTTPS_ONLY else "Lax"
SECURE_SSL_REDIRECT = HTTPS_ONLY
SECURE_HSTS_SECONDS = _integer("HSTS_SECONDS", 31_536_000 if HTTPS_ONLY else 0)
X_FRAME_OPTIONS = "DENY"
if _boolean("TRUST_FORWARDED_PROTO", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# Whether other hosts of the domain are HTTPS only too is not ours to promise.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

LOGGING_CONFIG = None
configure_logs(_choice("LOG_LEVEL", "INFO", "DEBUG", "INFO", "WARNING", "ERROR"))

# The scheduler. Times are integers in ms.

SCHED_INSTANCE_ID = env.str("SCHED_INSTANCE_ID", default="auto")
SCHED_REDIS_MODE = _choice("SCHED_REDIS_MODE", "single", "single", "sentinel", "cluster", "off")
SCHED_REDIS_URL = env.str("SCHED_REDIS_URL", default="")
SCHED_REDIS_CLUSTER_URLS = env.list("SCHED_REDIS_CLUSTER_URLS", default=[])
SCHED_REDIS_KEY_PREFIX = env.str("SCHED_REDIS_KEY_PREFIX", default="lingua")
SCHED_EMBEDDED_DIR = Path(env.str("SCHED_EMBEDDED_DIR", default=str(VAR_DIR / "valkey")))

SCHED_LEADER_CANDIDATE = _boolean("SCHED_LEADER_CANDIDATE", default=True)
SCHED_LEADER_TTL_MS = _integer("SCHED_LEADER_TTL_MS", 60_000)
SCHED_LEADER_RENEW_MS = _integer("SCHED_LEADER_RENEW_MS", 10_000)
SCHED_POOL_SYNC_MS = _positive("SCHED_POOL_SYNC_MS", 10_000)
SCHED_POOL_CONFIG_TTL_MS = _positive("SCHED_POOL_CONFIG_TTL_MS", 3_600_000)
SCHED_POOL_CLEANUP_MS = _positive("SCHED_POOL_CLEANUP_MS", 60_000)
SCHED_SNAPSHOT_SYNC_MS = _integer("SCHED_SNAPSHOT_SYNC_MS", 1_000)
SCHED_HEARTBEAT_MS = _integer("SCHED_HEARTBEAT_MS", 15_000)
SCHED_PRESENCE_TTL_MS = _integer("SCHED_PRESENCE_TTL_MS", 45_000)
SCHED_OWNER_TTL_MS = _integer("SCHED_OWNER_TTL_MS", 45_000)

SCHED_MIN_NODES_PER_POOL = _integer("SCHED_MIN_NODES_PER_POOL", 1)
SCHED_MAX_POOLS = _integer("SCHED_MAX_POOLS", 50)
SCHED_ENABLE_MIXED_POOLS = _boolean("SCHED_ENABLE_MIXED_POOLS", default=True)
SCHED_REQUIRE_SEMANTIC = _boolean("SCHED_REQUIRE_SEMANTIC", default=True)

SCHED_MAX_JOBS_PER_NODE = _integer("SCHED_MAX_JOBS_PER_NODE", 4)
SCHED_RESOURCE_THRESHOLD = _integer("SCHED_RESOURCE_THRESHOLD", 85)
SCHED_JOB_TIMEOUT_MS = _integer("SCHED_JOB_TIMEOUT_MS", 30_000)
# By default half of a short job time-out, so that who shortens that need not know of this.
SCHED_ACK_TIMEOUT_MS = _integer("SCHED_ACK_TIMEOUT_MS", min(5_000, SCHED_JOB_TIMEOUT_MS // 2))
SCHED_NODE_GRACE_MS = _integer("SCHED_NODE_GRACE_MS", 0)
SCHED_DRAIN_TIMEOUT_MS = _integer("SCHED_DRAIN_TIMEOUT_MS", 30_000)
SCHED_JOB_MAX_ATTEMPTS = _integer("SCHED_JOB_MAX_ATTEMPTS", 3)
SCHED_QUEUE_LIMIT = _integer("SCHED_QUEUE_LIMIT", 1_000)
SCHED_TENANT_WEIGHTS = env.str("SCHED_TENANT_WEIGHTS", default="")
SCHED_QUEUE_TIMEOUT_MS = _integer("SCHED_QUEUE_TIMEOUT_MS", 10_000)
SCHED_DEAD_LETTERS_LIMIT = _positive("SCHED_DEAD_LETTERS_LIMIT", 1_000)
SCHED_DEAD_LETTERS_KEEP_MS = _positive("SCHED_DEAD_LETTERS_KEEP_MS", 604_800_000)
SCHED_SESSION_RETENTION_MS = _positive("SCHED_SESSION_RETENTION_MS", 600_000)
SCHED_MAX_FRAME_BYTES = _positive("SCHED_MAX_FRAME_BYTES", 4_000_000)
SCHED_STOP_TIMEOUT_MS = _positive("SCHED_STOP_TIMEOUT_MS", 10_000)

SCHED_NODE_AUTH = _choice("SCHED_NODE_AUTH", "required", "required", "open")
SCHED_SESSION_AUTH = _choice("SCHED_SESSION_AUTH", "required", "required", "open")
SCHED_SESSION_KEYS = env.str("SCHED_SESSION_KEYS", default="")
SCHED_SESSION_ORIGINS = env.list("SCHED_SESSION_ORIGINS", default=[])

# Where everyone may come in, on a machine of one's own, nobody is held back by default.
_guarded = {"node": SCHED_NODE_AUTH == "required", "session": SCHED_SESSION_AUTH == "required"}
_both = all(_guarded.values())
SCHED_SESSION_FRAME_RATE = _integer("SCHED_SESSION_FRAME_RATE", 200 if _guarded["session"] else 0)
SCHED_NODE_FRAME_RATE = _integer("SCHED_NODE_FRAME_RATE", 2_000 if _guarded["node"] else 0)
SCHED_SOCKETS_PER_ADDRESS = _integer("SCHED_SOCKETS_PER_ADDRESS", 1_000 if _both else 0)
SCHED_SOCKETS_PER_PROCESS = _integer("SCHED_SOCKETS_PER_PROCESS", 20_000)
SCHED_TENANT_IN_FLIGHT = _integer("SCHED_TENANT_IN_FLIGHT", 0)
SCHED_GREETING_MS = _integer("SCHED_GREETING_MS", 10_000)
SCHED_SESSION_IDLE_MS = _integer("SCHED_SESSION_IDLE_MS", 600_000)
