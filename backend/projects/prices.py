"""The prices of reads and writes, in rows (docs/cost.md). One unit takes at most about a tenth of a millisecond.

`make bench cost` measures that with 100,000 tasks, by a member of all projects too, who takes longest.
"""

# A list at the top, besides its rows: a query of its own, with permissions.
LIST = 100
# One object at the top, by its id.
OBJECT = 20
# A nested list of a project, besides its rows. PostgreSQL may read all of its tasks to find those of a filter.
NESTED_LIST = 10
PAGE_INFO = 3
# The number of rows of a list. To count tasks, or entries of the audit log, PostgreSQL reads all of them.
COUNT = 3
LARGE_COUNT = 30
# Comments are few, and those of many tasks are counted at once.
COMMENT_COUNT = 1
# A search by a member reads all tasks that they see, whatever it finds (docs/decisions/0007-large-tables.md).
TASK_SEARCH = 1_200
PROJECT_SEARCH = 100
WRITE = 10
