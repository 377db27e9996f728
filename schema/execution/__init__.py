"""Execution of operations: limits, cached documents, lists completed by columns, and the fan-out of events.

The modules work on graphql-core's documents and executors. The API itself is in the parent package.
"""
