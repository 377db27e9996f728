"""Cached lists, checked against positions.

A *tag* is a part of what can be seen: one project, what one user has access to, or everything. Redis holds a *mark*
of each: the position of the last change in it, and a nonce that is another one whenever the mark was lost in between.
A list is filed with the marks of its tags as they were before its rows were read, and served while all of them are
still the same. Nothing is ever deleted to make a list fresh.

Redis down means slower: said once, then every list is built. A tag whose mark is gone is unknown, never 0.
"""
