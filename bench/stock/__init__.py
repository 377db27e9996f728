"""The stock twins: what Django, DRF and strawberry-django make of the same models when they are left as they come.

Settings are those of `startproject`, access is open, nothing is cached. Run as a server, on BIND and PORT:
`DJANGO_SETTINGS_MODULE=bench.stock.settings python -m bench.stock.server`. With `bench.stock.product` the same server
shows the product's own views through Django's ASGI handler.
"""
