import sys

from backend.asgi import application
from backend.server import serve

sys.exit(serve(application))
