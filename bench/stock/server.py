import sys

from django.core.asgi import get_asgi_application

from backend.server import serve

if __name__ == "__main__":
    sys.exit(serve(get_asgi_application()))
