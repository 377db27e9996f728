"""Cached lists, checked against versions (docs/decisions/0002-cached-lists.md).

A *tag* names a part of what can be seen: one project, what one user has access to, or everything. Redis holds a
*version* of each tag: the position of its last change, and a nonce that differs each time the version was lost and
made anew. A list is stored with the versions that its tags had before its rows were read. It is served while every
version is still the same. Nothing is deleted to make a list fresh.

While Redis is down every list is built; the log says so once. A tag without a version is unknown, never 0.
"""
