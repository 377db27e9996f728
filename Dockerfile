# One image for web, worker, beat and migrations: docker-compose.yml says which command each runs.
# Every package is a wheel, so no compiler and no second stage are needed.
FROM python:3.13-slim

# STATIC_ROOT, BIND and PORT are Taskwire's settings (.env.example).
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    STATIC_ROOT=/app/staticfiles \
    BIND=0.0.0.0 \
    PORT=8000

WORKDIR /app

# Celery warns about a group without a name. Orchestrators recognize by the number that the user is not root.
RUN groupadd --gid 10001 taskwire \
    && useradd --uid 10001 --gid taskwire --no-log-init --no-create-home --shell /usr/sbin/nologin taskwire

COPY requirements/base.txt requirements/
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
    --require-hashes --only-binary=:all: --requirement requirements/base.txt

# Root owns the code, so the processes cannot change it. --chmod makes it readable whatever the checkout's umask is.
COPY --chmod=755 manage.py ./
COPY --chmod=755 backend backend
COPY --chmod=755 frontend frontend
COPY --chmod=755 rest rest
COPY --chmod=755 schema schema
COPY --chmod=755 tasks tasks

# The settings do not load without a key, nor with this one on a public address. Both are set for one command; the key
# signs nothing and is not in the image.
# The container's file system is read-only, so bytecode and compressed static files are created here.
RUN SECRET_KEY=unused BIND=127.0.0.1 python manage.py collectstatic --noinput \
    && python -m whitenoise.compress --quiet "$STATIC_ROOT" \
    && python -m compileall -q backend rest schema tasks

USER 10001:10001

EXPOSE 8000

# For the web; the other commands have their own in docker-compose.yml. The Host must be in ALLOWED_HOSTS
# (".example.org" includes example.org, "*" any). Not urllib: it would use a proxy from the environment.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; \
    host = os.environ.get('ALLOWED_HOSTS', '').split(',')[0].strip().lstrip('.*') or 'localhost'; \
    web = http.client.HTTPConnection('127.0.0.1', os.environ['PORT'], timeout=4); \
    web.request('GET', '/healthz', headers={'Host': host}); \
    sys.exit(web.getresponse().status != 200)"]

# Listens on BIND and PORT. It ignores X-Forwarded-* headers, since every client that reaches the port could set them.
# `TLS_PROXY` is the setting for an installation in which only the proxy reaches it.
CMD ["python", "-m", "backend.server"]
