"""The only settings module. Settings that differ between machines come from environment variables (`.env.example`)."""

import os
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from zoneinfo import available_timezones

import environ
from corsheaders.defaults import default_headers
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()
# The environment takes precedence over the file. The test suite reads no file: it has the defaults and its own values.
env_file = Path(os.environ.get("ENV_FILE", BASE_DIR / ".env"))
if env_file.is_file():
    environ.Env.read_env(env_file)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


LOOPBACK_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

SECRET_KEY = env.str("SECRET_KEY")
_EXAMPLE_KEY = "for-this-machine-alone-and-no-secret-at-all-since-everybody-can-read-it"  # of `.env.example`
DEBUG = env.bool("DEBUG", default=False)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=LOOPBACK_HOSTS)

# The address and port of every start command. The application cannot see the flags of its server, so a check here
# ensures that open access stays on this machine.
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

# What is convenient on one machine gives the data away where other machines reach the server.
_is_public = BIND != "localhost" and not _is_loopback(BIND)
if _is_public and DEBUG:
    raise ImproperlyConfigured(f"DEBUG is on, and its error pages show settings, but BIND is {BIND!r}: switch it off.")
if _is_public and "*" in ALLOWED_HOSTS:
    raise ImproperlyConfigured(f"ALLOWED_HOSTS is * (any), but BIND is {BIND!r}: list the names of this server.")
if _is_public and (len(SECRET_KEY) < 50 or len(set(SECRET_KEY)) < 5):
    raise ImproperlyConfigured(
        f"SECRET_KEY is too easy to guess for BIND={BIND}: set the output of openssl rand -hex 32."
    )

# A proxy in front terminates TLS. It sets X-Forwarded-For and X-Forwarded-Proto, and overwrites a client's values.
TLS_PROXY = env.bool("TLS_PROXY", default=False)
if ACCESS == "open" and TLS_PROXY:
    raise ImproperlyConfigured("ACCESS=open is for this machine alone, but TLS_PROXY is on: a proxy lets others in.")
_serves_others = _is_public or TLS_PROXY or not set(ALLOWED_HOSTS) <= {*LOOPBACK_HOSTS, "::1"}
if SECRET_KEY == _EXAMPLE_KEY and _serves_others:
    raise ImproperlyConfigured(
        "SECRET_KEY is the one of .env.example, for one machine: set that of openssl rand -hex 32."
    )

INSTALLED_APPS = [
    "axes",
    "daphne",
    "backend.projects",  # before Django's apps: it overrides a command of theirs
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
    "backend.web.errors.UnavailableMiddleware",
    "backend.web.middleware.limit_response",  # last: the others apply to its responses too
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
# Seconds after which a server that does not accept a connection, or acknowledges nothing, counts as unavailable.
DATABASE_TIMEOUT_S = env.int("DATABASE_TIMEOUT_S", default=2)
if not 2 <= DATABASE_TIMEOUT_S <= 60:  # libpq waits for a connection for 2 s at least
    raise ImproperlyConfigured(f"DATABASE_TIMEOUT_S is {DATABASE_TIMEOUT_S}: set seconds, from 2 to 60.")
# A server that vanished is noticed this soon, instead of after a quarter of an hour. The URL can override the options.
DATABASES["default"]["OPTIONS"] = {
    "connect_timeout": DATABASE_TIMEOUT_S,
    "keepalives_idle": DATABASE_TIMEOUT_S,  # while a statement is being executed
    "keepalives_interval": 1,
    "keepalives_count": 2,
    "tcp_user_timeout": 1000 * DATABASE_TIMEOUT_S,  # milliseconds
    # JIT compilation takes longer than it saves: a plan's estimated cost includes the branches that are not executed.
    # New rows wait in a pending list before they enter the GIN index for searches. Every search scans that list, and
    # the write that finds it full flushes it.
    "options": "-c jit=off -c gin_pending_list_limit=512kB",
    **DATABASES["default"].get("OPTIONS", {}),
}
# Each thread reuses its connection, and checks it before every reuse.
DATABASES["default"].setdefault("CONN_MAX_AGE", None)
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
# Connections per web process for requests and sockets. Three more read the journal for its listeners.
DATABASE_CONNECTIONS = env.int("DATABASE_CONNECTIONS", default=10)
if not 1 <= DATABASE_CONNECTIONS <= 1000:
    raise ImproperlyConfigured(f"DATABASE_CONNECTIONS is {DATABASE_CONNECTIONS}: set a number from 1 to 1000.")
# Seconds that a request, an operation on a socket or the execution of an event may take.
OPERATION_TIMEOUT_S = env.float("OPERATION_TIMEOUT_S", default=10.0)
if not 0.1 <= OPERATION_TIMEOUT_S <= 3600:
    raise ImproperlyConfigured(f"OPERATION_TIMEOUT_S is {OPERATION_TIMEOUT_S:g}: set seconds, from 0.1 to 3600.")
# Bytes of a response, over HTTP and on sockets.
ANSWER_BYTES = env.int("ANSWER_BYTES", default=16 * 1024 * 1024)
if not 4 * 1024 * 1024 <= ANSWER_BYTES <= 2**30:  # several times the largest body of a write
    raise ImproperlyConfigured(f"ANSWER_BYTES is {ANSWER_BYTES}: set bytes, from 4194304 to 1073741824.")
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"

REDIS_URL = env.str("REDIS_URL", default="redis://127.0.0.1:6379/0")
# The prefix of every key and channel in Redis. Installations that share a Redis need different prefixes.
REDIS_PREFIX = env.str("REDIS_PREFIX", default="taskwire")
# Seconds that a thread waits for Redis: twice at most per write, of which the second is for the bump of its tags.
REDIS_TIMEOUT_S = env.float("REDIS_TIMEOUT_S", default=0.4)
if not 0.05 <= REDIS_TIMEOUT_S <= 10:
    raise ImproperlyConfigured(f"REDIS_TIMEOUT_S is {REDIS_TIMEOUT_S}: set seconds, from 0.05 to 10.")
CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": REDIS_PREFIX,
        "OPTIONS": {
            "SOCKET_CONNECT_TIMEOUT": REDIS_TIMEOUT_S,
            "SOCKET_TIMEOUT": REDIS_TIMEOUT_S,
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
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # workers reconnect, however long the broker was down
if "redis" in CELERY_BROKER_URL.split(":")[0]:
    # Redis redelivers a message that is not acknowledged within `visibility_timeout` seconds. Every task is shorter.
    CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 600, "global_keyprefix": f"{REDIS_PREFIX}:"}
# The queue in the broker. Installations that share a broker need different queues.
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
# The recipient of reminders and summaries if no member of the project has an address.
NOTIFY_EMAIL = env.str("NOTIFY_EMAIL", default="")
# Reminders and summaries that one address gets in any hour, half of them for one project. Further ones are sent as one
# digest an hour.
MAILS_PER_HOUR = env.int("MAILS_PER_HOUR", default=20)
if not 1 <= MAILS_PER_HOUR <= 1000:
    raise ImproperlyConfigured(f"MAILS_PER_HOUR is {MAILS_PER_HOUR}: set a number from 1 to 1000.")
# The time zone of the days in summaries, and the hour at which the summary of the previous day is generated.
SUMMARY_TIME_ZONE = env.str("SUMMARY_TIME_ZONE", default="UTC")
SUMMARY_HOUR = env.int("SUMMARY_HOUR", default=6)
if SUMMARY_TIME_ZONE not in available_timezones():
    raise ImproperlyConfigured(f"SUMMARY_TIME_ZONE is {SUMMARY_TIME_ZONE!r}: set a name such as Europe/Berlin.")
if not 0 <= SUMMARY_HOUR <= 23:
    raise ImproperlyConfigured(f"SUMMARY_HOUR is {SUMMARY_HOUR}: set an hour from 0 to 23.")
# Characters of the longest description of a project or task, and of the longest comment.
DESCRIPTION_CHARACTERS = env.int("DESCRIPTION_CHARACTERS", default=64 * 1024)
COMMENT_CHARACTERS = env.int("COMMENT_CHARACTERS", default=16 * 1024)
if not 1 <= DESCRIPTION_CHARACTERS <= 1_000_000:
    raise ImproperlyConfigured(f"DESCRIPTION_CHARACTERS is {DESCRIPTION_CHARACTERS}: set a number from 1 to 1000000.")
if not 1 <= COMMENT_CHARACTERS <= 1_000_000:
    raise ImproperlyConfigured(f"COMMENT_CHARACTERS is {COMMENT_CHARACTERS}: set a number from 1 to 1000000.")
# Days after which an event of the journal, and an entry of the audit log, are deleted.
JOURNAL_DAYS = env.int("JOURNAL_DAYS", default=30)
AUDIT_DAYS = env.int("AUDIT_DAYS", default=365)
if not 10 <= JOURNAL_DAYS <= 36500:  # summaries of the last week need it, also after a late start
    raise ImproperlyConfigured(f"JOURNAL_DAYS is {JOURNAL_DAYS}: set days, from 10 to 36500.")
if not 1 <= AUDIT_DAYS <= 36500:
    raise ImproperlyConfigured(f"AUDIT_DAYS is {AUDIT_DAYS}: set days, from 1 to 36500.")
# Days in which an invitation to a project can be accepted.
INVITATION_DAYS = env.int("INVITATION_DAYS", default=7)
if not 1 <= INVITATION_DAYS <= 365:
    raise ImproperlyConfigured(f"INVITATION_DAYS is {INVITATION_DAYS}: set days, from 1 to 365.")
# Seconds between two polls of the journal by a live process that is not notified.
LIVE_POLL_S = env.float("LIVE_POLL_S", default=3.0)
# Seconds between the frames that report the position to an idle plain socket or stream.
LIVE_IDLE_S = env.float("LIVE_IDLE_S", default=20.0)
# Events in the queue of one listener. A listener with a full queue is closed with `resync`.
LIVE_QUEUE_EVENTS = env.int("LIVE_QUEUE_EVENTS", default=1000)
# Bytes of the events in the queue of one listener. A listener with a full queue is closed with `resync`.
LIVE_QUEUE_BYTES = env.int("LIVE_QUEUE_BYTES", default=4 * 1024 * 1024)
# Bytes of the longest event that is sent whole. A longer one is sent with the beginnings of its long texts.
EVENT_BYTES = env.int("EVENT_BYTES", default=256 * 1024)
# Bytes of events after which one read of the journal ends: of live delivery, of a listener that resumes, of a page.
JOURNAL_PAGE_BYTES = env.int("JOURNAL_PAGE_BYTES", default=512 * 1024)
if not 64 * 1024 <= LIVE_QUEUE_BYTES <= 1024**3:
    raise ImproperlyConfigured(f"LIVE_QUEUE_BYTES is {LIVE_QUEUE_BYTES}: set bytes, from 65536 to 1073741824.")
if not 16 * 1024 <= EVENT_BYTES <= 1_000_000:
    raise ImproperlyConfigured(f"EVENT_BYTES is {EVENT_BYTES}: set bytes, from 16384 to 1000000.")
if not 64 * 1024 <= JOURNAL_PAGE_BYTES <= 64 * 1024**2:
    raise ImproperlyConfigured(f"JOURNAL_PAGE_BYTES is {JOURNAL_PAGE_BYTES}: set bytes, from 65536 to 67108864.")
# Sockets and streams that one account may have open in one process, far above what a person's tabs and scripts need.
# With open access, all clients count as one account.
LIVE_LISTENERS_PER_VIEWER = 100
# Operations in progress on one GraphQL socket, queries and mutations included. They count as one connection.
LIVE_SUBSCRIPTIONS_PER_SOCKET = 100
# Seconds that a socket may take to authenticate.
SOCKET_INIT_S = 5.0
# Sockets of one process that have not authenticated yet, and as many HTTP connections without a complete request, in
# all and for one address. Further sockets get a 503; of the HTTP connections the one that waits longest is closed.
WAITING_CONNECTIONS = env.int("WAITING_CONNECTIONS", default=500)
WAITING_CONNECTIONS_PER_ADDRESS = env.int("WAITING_CONNECTIONS_PER_ADDRESS", default=100)
# Connections that one address may open per second, in bursts three times as many. Further ones are closed unread.
CONNECTIONS_PER_S = env.int("CONNECTIONS_PER_S", default=100)
for _name in ("WAITING_CONNECTIONS", "WAITING_CONNECTIONS_PER_ADDRESS", "CONNECTIONS_PER_S"):
    if not 1 <= vars()[_name] <= 1_000_000:
        raise ImproperlyConfigured(f"{_name} is {vars()[_name]}: set a number from 1 to 1000000.")
# Frames per second that a client may send on one socket, in bursts three times as many. More close the socket (1008).
SOCKET_FRAMES_PER_S = env.int("SOCKET_FRAMES_PER_S", default=100)
if not 1 <= SOCKET_FRAMES_PER_S <= 100_000:
    raise ImproperlyConfigured(f"SOCKET_FRAMES_PER_S is {SOCKET_FRAMES_PER_S}: set a number from 1 to 100000.")
# Maximum seconds that a cached list is stored. The versions of its tags keep it current, not this lifetime.
CACHE_LIST_S = env.int("CACHE_LIST_S", default=60)

# What an operation may cost (docs/cost.md): at most COST_MAX, and for one viewer COST_BUDGET at once and
# COST_RESTORE_RATE per second. With COST_MODE=measure costs are reported, and nothing is refused.
COST_MODE = env.str("COST_MODE", default="enforce")
COST_MAX = env.int("COST_MAX", default=10_000)
if COST_MODE not in {"enforce", "measure"}:
    raise ImproperlyConfigured(f"COST_MODE is {COST_MODE!r}: set it to 'enforce' or 'measure'.")
COST_BUDGET = env.int("COST_BUDGET", default=60_000)
COST_RESTORE_RATE = env.int("COST_RESTORE_RATE", default=1_000)
if not 1 <= COST_MAX <= COST_BUDGET:
    raise ImproperlyConfigured(f"COST_MAX is {COST_MAX}: set a number from 1 to COST_BUDGET ({COST_BUDGET}).")
if COST_RESTORE_RATE < 1:
    raise ImproperlyConfigured(f"COST_RESTORE_RATE is {COST_RESTORE_RATE}: set 1 or more.")
# Writes of one account per minute, and tokens, invitations, and sign-ins with changes of the password per hour. As many
# are possible at once.
WRITES_PER_MINUTE = env.int("WRITES_PER_MINUTE", default=600)
TOKENS_PER_HOUR = env.int("TOKENS_PER_HOUR", default=100)
INVITATIONS_PER_HOUR = env.int("INVITATIONS_PER_HOUR", default=60)
SIGN_INS_PER_HOUR = env.int("SIGN_INS_PER_HOUR", default=60)
for _name in ("WRITES_PER_MINUTE", "TOKENS_PER_HOUR", "INVITATIONS_PER_HOUR", "SIGN_INS_PER_HOUR"):
    if vars()[_name] < 1:
        raise ImproperlyConfigured(f"{_name} is {vars()[_name]}: set 1 or more.")

# Identifies the running code. Cached lists and ETags of another build are not current.
BUILD = env.str("BUILD", default="0.1.0")

DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024  # bytes of a request's body; a larger one gets a 413

# Seconds that the head of a request, and then its body, may take to arrive, however busy the connection is meanwhile.
REQUEST_HEAD_S = env.float("REQUEST_HEAD_S", default=20.0)
REQUEST_BODY_S = env.float("REQUEST_BODY_S", default=60.0)
if not 1 <= REQUEST_HEAD_S <= 3600:
    raise ImproperlyConfigured(f"REQUEST_HEAD_S is {REQUEST_HEAD_S}: set seconds, from 1 to 3600.")
if not 1 <= REQUEST_BODY_S <= 3600:
    raise ImproperlyConfigured(f"REQUEST_BODY_S is {REQUEST_BODY_S}: set seconds, from 1 to 3600.")

# --- Accounts and browsers -------------------------------------------------------------------------------
AUTH_USER_MODEL = "projects.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
# Passwords that one process checks at a time; at most half of them for one address. Another sign-in gets a 503.
PASSWORD_CHECKS = env.int("PASSWORD_CHECKS", default=4)
if not 1 <= PASSWORD_CHECKS <= 1000:
    raise ImproperlyConfigured(f"PASSWORD_CHECKS is {PASSWORD_CHECKS}: set a number from 1 to 1000.")
# Failed sign-ins are counted per user name and address, in the database: that works while Redis is down.
AXES_HANDLER = "backend.web.attempts.AttemptHandler"
AXES_FAILURE_LIMIT = 5
# They are also counted per address with any names, and per name from any addresses.
SIGN_IN_FAILURES_PER_ADDRESS = env.int("SIGN_IN_FAILURES_PER_ADDRESS", default=50)
SIGN_IN_FAILURES_PER_NAME = env.int("SIGN_IN_FAILURES_PER_NAME", default=100)
for _name in ("SIGN_IN_FAILURES_PER_ADDRESS", "SIGN_IN_FAILURES_PER_NAME"):
    if not AXES_FAILURE_LIMIT <= vars()[_name] <= 1_000_000:
        raise ImproperlyConfigured(f"{_name} is {vars()[_name]}: set a number from {AXES_FAILURE_LIMIT} to 1000000.")
AXES_COOLOFF_TIME = timedelta(minutes=15)  # after the last failure; attempts during the lockout do not count
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_USERNAME_CALLABLE = "backend.web.accounts.attempt_name"
AXES_CLIENT_IP_CALLABLE = "backend.web.accounts.attempt_address"
AXES_LOCKOUT_CALLABLE = "backend.web.accounts.locked_out"
# Axes stores the form with each attempt. It masks the password by default; these are our form's other fields.
AXES_SENSITIVE_PARAMETERS = ["username", "csrfmiddlewaretoken", "next"]
AXES_DISABLE_ACCESS_LOG = True  # our own audit log replaces it
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False

SESSION_ENGINE = "backend.web.sessions"
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "/graphql/"

# Open access and DEBUG use plain HTTP on this machine. Closed access can do so too: browsers accept secure cookies from
# localhost, and HSTS is sent over TLS only.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG and ACCESS == "closed"
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if not DEBUG and ACCESS == "closed" else 0
# Browsers ship the preload list and apply it to all subdomains. A name is off the list only months after its removal.
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = env.bool("HSTS_PRELOAD", default=False)
# The deployment check would ask for both.
SILENCED_SYSTEM_CHECKS = [] if SECURE_HSTS_PRELOAD else ["security.W005", "security.W021"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TLS_PROXY else None
SECURE_SSL_REDIRECT = TLS_PROXY
SECURE_REDIRECT_EXEMPT = [r"^healthz$"]  # health checks do not come through the proxy
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
CORS_ALLOWED_ORIGINS = env.list("CORS_ALLOWED_ORIGINS", default=[])
CORS_ALLOW_HEADERS = [*default_headers, "if-match", "if-none-match", "last-event-id"]
CORS_EXPOSE_HEADERS = [
    "ETag",
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Cursor",
    "X-Total-Count",
]
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
# The folder of collected static files in the image. Without it they are served from the packages and the checkout, so
# that a change needs no `collectstatic`.
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

# --- The APIs --------------------------------------------------------------------------------------------
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
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums", "rest.openapi.add_shared_components"],
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

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "filters": {
        "without_malformed_text": {"()": "backend.web.log.WithoutMalformedText"},
        "without_unavailable": {"()": "backend.web.log.WithoutUnavailable"},
    },
    "handlers": {
        "console": {"class": "backend.web.log.CountingHandler", "formatter": "line"},
        "access": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"},
    },
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", default="INFO")},
    "loggers": {
        # Celery logs the start and end of every task. The tasks themselves log what they have done.
        **{name: {"level": "WARNING"} for name in ("celery.app.trace", "celery.beat", "celery.worker.strategy")},
        # Axes logs the user name of each attempt. Some users type their password into that field.
        "axes": {"level": "CRITICAL"},
        # A mistake of the client, which gets a 400. It needs no traceback in our log.
        "django.security.DisallowedHost": {"level": "CRITICAL"},
        "django.request": {"filters": ["without_unavailable"]},
        # Lower levels report starting and stopping.
        "uvicorn.error": {"level": "ERROR", "filters": ["without_malformed_text"]},
        "uvicorn.access": {"handlers": ["access"], "propagate": False},
    },
}
