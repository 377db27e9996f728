from .comment import Comment
from .event import Event
from .membership import Membership, Role
from .project import Project
from .reminder import Reminder
from .summary_report import ReportMail, SummaryReport
from .task import Status, Task
from .user import User

__all__ = [
    "Comment",
    "Event",
    "Membership",
    "Project",
    "Reminder",
    "ReportMail",
    "Role",
    "Status",
    "SummaryReport",
    "Task",
    "User",
]
