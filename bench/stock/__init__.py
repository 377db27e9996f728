"""Stock implementations of the API: Django, DRF and strawberry-django over the same models, with their defaults.

Settings are those of `startproject`, access is open, nothing is cached. Run as a server, on BIND and PORT:
`DJANGO_SETTINGS_MODULE=bench.stock.settings python -m bench.stock.server`. With the settings `bench.stock.product` the
same server runs the product's own views with Django's ASGI handler.
"""
