"""How operations are executed: limits, kept documents, lists column by column, and the fan-out of events.

Everything here works on documents and executors of graphql-core; the API itself is the package above.
"""
