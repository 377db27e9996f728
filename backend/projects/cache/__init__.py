"""Cached lists, checked against versions (docs/decisions/0002-cached-lists.md).

A *tag* names a part of what can be seen: one project, what one user has access to, or everything. Redis holds a
*version* of each tag: the position of its last change, and a nonce that is new each time a lost version is created
again. A list is stored with the versions that its tags had before its rows were read. It is served while every version
is still the same. A write deletes no list.

While Redis is down every list is read from the database, which is logged once. A missing version is unknown, never 0.
"""
