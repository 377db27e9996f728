# One image for web, worker, beat and migrations: docker-compose.yml says which command each runs.
# Every package comes as a wheel, so no compiler is needed and one stage is all there is.
FROM python:3.13-slim

# STATIC_ROOT, BIND and PORT are settings of ours (.env.example).
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    STATIC_ROOT=/app/staticfiles \
    BIND=0.0.0.0 \
    PORT=8000

WORKDIR /app

# With a name, since Celery takes a group without one for a danger; the number for orchestrators, which see by it that
# this is not root.
RUN groupadd --gid 10001 taskwire \
    && useradd --uid 10001 --gid taskwire --no-log-init --no-create-home --shell /usr/sbin/nologin taskwire

COPY requirements/base.txt requirements/
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
    --require-hashes --only-binary=:all: --requirement requirements/base.txt

# The code stays root's, so what runs cannot change it. It is made readable here, whatever umask the checkout has.
COPY --chmod=755 manage.py ./
COPY --chmod=755 backend backend
COPY --chmod=755 frontend frontend
COPY --chmod=755 rest rest
COPY --chmod=755 schema schema
COPY --chmod=755 tasks tasks

# Settings do not load without a key. This one is set for one command, signs nothing and is not in the image.
# What can be made once is made here, since nothing can be written at run time: bytecode, and gzip beside static files.
RUN SECRET_KEY=unused python manage.py collectstatic --noinput \
    && python -m whitenoise.compress --quiet "$STATIC_ROOT" \
    && python -m compileall -q backend rest schema tasks

USER 10001:10001

EXPOSE 8000

# Of the web; the other commands bring their own. The Host has to be one that ALLOWED_HOSTS names (".example.org"
# names example.org, "*" any). Not urllib: it would ask a proxy of the environment.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; \
    host = os.environ.get('ALLOWED_HOSTS', '').split(',')[0].strip().lstrip('.*') or 'localhost'; \
    web = http.client.HTTPConnection('127.0.0.1', os.environ['PORT'], timeout=4); \
    web.request('GET', '/healthz', headers={'Host': host}); \
    sys.exit(web.getresponse().status != 200)"]

# Reads BIND and PORT. It takes no proxy's word for a client's address or scheme: whoever reaches the port could then claim
# any (`TLS_PROXY` is the setting for an installation where the proxy alone reaches it).
CMD ["python", "-m", "backend.server"]
