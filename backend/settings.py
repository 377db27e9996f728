"""The one settings module: what differs between machines comes from the environment (`.env.example`)."""

import os
from datetime import timedelta
from pathlib import Path
from zoneinfo import available_timezones

import environ
from corsheaders.defaults import default_headers
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()
# What the environment names wins over the file. The suite has no file: it sees the defaults, and what it sets itself.
env_file = Path(os.environ.get("ENV_FILE", BASE_DIR / ".env"))
if env_file.is_file():
    environ.Env.read_env(env_file)

LOOPBACK_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

SECRET_KEY = env.str("SECRET_KEY")
DEBUG = env.bool("DEBUG", default=False)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=LOOPBACK_HOSTS)

# The address and port that every start command listens on. The application cannot see its server's flags,
# so the promise that open access stays on this machine is checked here.
BIND = env.str("BIND", default="127.0.0.1")
PORT = env.int("PORT", default=8000)
SERVER = env.str("SERVER", default="daphne")
if SERVER not in {"daphne", "uvicorn"}:
    raise ImproperlyConfigured(f"SERVER is {SERVER!r}: set it to 'daphne' or 'uvicorn'.")

ACCESS = env.str("ACCESS", default="closed")
if ACCESS not in {"open", "closed"}:
    raise ImproperlyConfigured(f"ACCESS is {ACCESS!r}: set it to 'closed' or 'open'.")
if ACCESS == "open" and BIND not in {"localhost", "127.0.0.1", "::1"}:
    raise ImproperlyConfigured(f"ACCESS=open is for this machine alone, but BIND is {BIND!r}: set 127.0.0.1.")
if ACCESS == "open" and not set(ALLOWED_HOSTS) <= {*LOOPBACK_HOSTS, "::1"}:
    raise ImproperlyConfigured("ACCESS=open is for this machine alone: ALLOWED_HOSTS may name loopback only.")

# A proxy stands in front that speaks TLS, and sets X-Forwarded-For and X-Forwarded-Proto itself, whatever they were.
TLS_PROXY = env.bool("TLS_PROXY", default=False)
if ACCESS == "open" and TLS_PROXY:
    raise ImproperlyConfigured("ACCESS=open is for this machine alone, but TLS_PROXY is on: others come by the proxy.")

INSTALLED_APPS = [
    "axes",
    "daphne",
    "backend.projects",  # before Django's, whose command it overrides
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "channels",
    "corsheaders",
    "csp",
    "django_celery_beat",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "rest_framework",
    "strawberry_django",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "backend.web.middleware.limit_body",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "backend.web.middleware.SlashMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "backend.urls"
ASGI_APPLICATION = "backend.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "frontend" / "templates"],
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

# --- Servers ---------------------------------------------------------------------------------------------
_DEFAULT_URL = "postgres://taskwire@127.0.0.1:5432/taskwire"
DATABASES = {"default": env.db("DATABASE_URL", default=_DEFAULT_URL, engine="backend.postgresql")}
# A server that is gone without a word is found out within 25 s, not a quarter of an hour; the URL may say otherwise.
DATABASES["default"]["OPTIONS"] = {
    "connect_timeout": 10,  # seconds, as the next three
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # milliseconds
    # Compiling takes longer than any of our statements is worth: a plan's cost counts the ways that are not taken.
    # What was just written waits in a list before it goes into the index of words. Every search looks through that, and
    # whoever writes when it is full empties it.
    "options": "-c jit=off -c gin_pending_list_limit=512kB",
    **DATABASES["default"].get("OPTIONS", {}),
}
# A thread that has opened a connection keeps it, and checks it before it is used again.
DATABASES["default"].setdefault("CONN_MAX_AGE", None)
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
# Connections that a web process may open for requests and sockets. Three more read the journal for its listeners.
DATABASE_CONNECTIONS = env.int("DATABASE_CONNECTIONS", default=10)
if not 1 <= DATABASE_CONNECTIONS <= 1000:
    raise ImproperlyConfigured(f"DATABASE_CONNECTIONS is {DATABASE_CONNECTIONS}: set a number from 1 to 1000.")
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"

REDIS_URL = env.str("REDIS_URL", default="redis://127.0.0.1:6379/0")
# The first part of every key and channel in Redis: installations that share a Redis need one each.
REDIS_PREFIX = env.str("REDIS_PREFIX", default="taskwire")
CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": REDIS_PREFIX,
        "OPTIONS": {
            "SOCKET_CONNECT_TIMEOUT": 1,
            "SOCKET_TIMEOUT": 2,
            "CONNECTION_FACTORY": "backend.projects.cache.redis.IdentifyingConnectionFactory",
        },
    }
}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL], "prefix": f"{REDIS_PREFIX}:notify"},
    }
}

CELERY_BROKER_URL = env.str("BROKER_URL", default="amqp://guest:guest@127.0.0.1:5672//")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # a broker that comes back in an hour finds its workers waiting
if "redis" in CELERY_BROKER_URL.split(":")[0]:
    # Redis hands a message out again that was not acknowledged for this long: longer than any task may run.
    CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 600, "global_keyprefix": f"{REDIS_PREFIX}:"}
# The queue in the broker: installations that share a broker need one each.
CELERY_TASK_DEFAULT_QUEUE = env.str("QUEUE", default="taskwire")
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_TIME_LIMIT = 300  # seconds, for one run of one task
CELERY_WORKER_CONCURRENCY = env.int("WORKER_PROCESSES", default=2)
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_REDIRECT_STDOUTS = False
CELERY_BEAT_SCHEDULER = "tasks.schedule:Scheduler"
CELERY_TIMEZONE = "UTC"

vars().update(env.email_url("EMAIL_URL", default="consolemail://"))
DEFAULT_FROM_EMAIL = env.str("FROM_EMAIL", default="Taskwire <taskwire@localhost>")
SERVER_EMAIL = DEFAULT_FROM_EMAIL
EMAIL_TIMEOUT = 20  # seconds

# --- The product -----------------------------------------------------------------------------------------
# Who is reminded of a task, and sent a summary, where no member of its project has an address.
NOTIFY_EMAIL = env.str("NOTIFY_EMAIL", default="")
# The clock by which a day starts and ends in summaries, and the hour at which yesterday's is made.
SUMMARY_TIME_ZONE = env.str("SUMMARY_TIME_ZONE", default="UTC")
SUMMARY_HOUR = env.int("SUMMARY_HOUR", default=6)
if SUMMARY_TIME_ZONE not in available_timezones():
    raise ImproperlyConfigured(f"SUMMARY_TIME_ZONE is {SUMMARY_TIME_ZONE!r}: set a name such as Europe/Berlin.")
if not 0 <= SUMMARY_HOUR <= 23:
    raise ImproperlyConfigured(f"SUMMARY_HOUR is {SUMMARY_HOUR}: set an hour from 0 to 23.")
# Days that an event of the journal, and an entry of the audit log, are kept.
JOURNAL_DAYS = env.int("JOURNAL_DAYS", default=30)
AUDIT_DAYS = env.int("AUDIT_DAYS", default=365)
if not 10 <= JOURNAL_DAYS <= 36500:  # summaries of the last week are made from it, also after a late start
    raise ImproperlyConfigured(f"JOURNAL_DAYS is {JOURNAL_DAYS}: set days, from 10 to 36500.")
if not 1 <= AUDIT_DAYS <= 36500:
    raise ImproperlyConfigured(f"AUDIT_DAYS is {AUDIT_DAYS}: set days, from 1 to 36500.")
# Seconds between two polls of the journal by a live process that is not notified.
LIVE_POLL_S = env.float("LIVE_POLL_S", default=3.0)
# Seconds between the frames that tell an idle plain socket or stream its position.
LIVE_IDLE_S = env.float("LIVE_IDLE_S", default=20.0)
# Events that may wait for one listener before it is told to resume instead.
LIVE_QUEUE_EVENTS = env.int("LIVE_QUEUE_EVENTS", default=1000)
# Sockets and streams that one account may have open in one process, far above what a person's tabs and scripts need.
# Open access is one account.
LIVE_LISTENERS_PER_VIEWER = 100
# Operations under way on one GraphQL socket, queries and mutations included; they share the socket's place.
LIVE_SUBSCRIPTIONS_PER_SOCKET = 100
# Seconds that a socket may take to say who comes.
SOCKET_INIT_S = 5.0
# Seconds that a cached list lives at most; what makes it right is its positions.
CACHE_LIST_S = env.int("CACHE_LIST_S", default=60)

# Names the running code: answers that were made by another build are not taken for current (ETags).
BUILD = env.str("BUILD", default="0.1.0")

DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024  # bytes of a request's body; more is 413

# --- People and browsers ---------------------------------------------------------------------------------
AUTH_USER_MODEL = "projects.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
# Tries to sign in, counted per name and address: in the database, so that they count while Redis is down.
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)  # after the last of them; what is tried meanwhile does not count
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_USERNAME_CALLABLE = "backend.web.accounts.name_of_try"
AXES_CLIENT_IP_CALLABLE = "backend.web.accounts.address_of_try"
AXES_LOCKOUT_CALLABLE = "backend.web.accounts.locked_out"
# It keeps the rest of the form with the try: of ours, that is nothing.
AXES_SENSITIVE_PARAMETERS = ["username", "csrfmiddlewaretoken", "next"]
AXES_DISABLE_ACCESS_LOG = True  # the audit log is ours
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False

SESSION_ENGINE = "backend.web.sessions"
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "/graphql/"

# Open access and work on the code are plain HTTP on this machine. So may be closed access: browsers take secure cookies
# from localhost, and HSTS goes out over TLS alone.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG and ACCESS == "closed"
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if not DEBUG and ACCESS == "closed" else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = True
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TLS_PROXY else None
SECURE_SSL_REDIRECT = TLS_PROXY
SECURE_REDIRECT_EXEMPT = [r"^healthz$"]  # who asks for it stands beside us, and not behind the proxy
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
CORS_ALLOWED_ORIGINS = env.list("CORS_ALLOWED_ORIGINS", default=[])
CORS_ALLOW_HEADERS = [*default_headers, "if-match", "if-none-match", "last-event-id"]
CORS_EXPOSE_HEADERS = ["ETag", "Link", "Location", "Retry-After", "X-Cursor", "X-Total-Count"]
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'", "data:"],
        "connect-src": ["'self'"],
        "frame-ancestors": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
    }
}

STATIC_URL = "/static/"
# Where an image keeps what it has collected. Without it static files are served straight from the packages and the
# checkout, with nothing to collect between a change and a browser.
STATIC_ROOT = env.str("STATIC_ROOT", default=None)
STATICFILES_DIRS = [
    ("graphiql", BASE_DIR / "frontend" / "graphiql"),
    ("site", BASE_DIR / "frontend" / "site"),
]
WHITENOISE_USE_FINDERS = STATIC_ROOT is None

LANGUAGE_CODE = "en-us"
USE_I18N = False
TIME_ZONE = "UTC"
USE_TZ = True

# --- The doors -------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest.authentication.ViewerAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "rest.errors.handle_exception",
    "URL_FORMAT_OVERRIDE": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Taskwire",
    "DESCRIPTION": "Projects, tasks and comments. Nothing is ever missed and nothing is ever stale.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {
        "Role": "backend.projects.models.membership.Role",
        "TokenScope": "backend.projects.models.token.Scope",
        "TaskStatus": "backend.projects.models.task.Status",
        "EventKind": "backend.projects.events.EventKind",
    },
}
STRAWBERRY_DJANGO = {"MUTATIONS_DEFAULT_HANDLE_ERRORS": True}

# What is tried again every second, and complains each time that its server is away.
TRIED_AGAIN = ["backend.projects.notifier", "backend.projects.live", "channels_redis.pubsub"]

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "filters": {"now_and_then": {"()": "backend.web.log.NowAndThen"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", default="INFO")},
    "loggers": {
        # Celery tells of every start and end of every task; what a task has done, it tells itself.
        **{name: {"level": "WARNING"} for name in ("celery.app.trace", "celery.beat", "celery.worker.strategy")},
        **{name: {"filters": ["now_and_then"]} for name in TRIED_AGAIN},
        # What somebody typed into the form is nothing for a log: some type their password where the name belongs.
        "axes": {"level": "CRITICAL"},
        # Somebody's mistake, told to them with a 400: no trace of it is ours to keep.
        "django.security.DisallowedHost": {"level": "CRITICAL"},
        "uvicorn.error": {"level": "ERROR"},  # its own lines on starting and stopping as well
    },
}
