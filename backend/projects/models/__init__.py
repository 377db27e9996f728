from .audit_entry import AuditAction, AuditEntry
from .comment import Comment
from .event import Event
from .invitation import Invitation
from .membership import Membership, Role
from .outgoing_mail import MailDigest, MailQuota
from .project import Project
from .reminder import Reminder
from .summary_report import ReportMail, SummaryReport
from .task import Status, Task
from .token import Scope, Token
from .user import User

__all__ = [
    "AuditAction",
    "AuditEntry",
    "Comment",
    "Event",
    "Invitation",
    "MailDigest",
    "MailQuota",
    "Membership",
    "Project",
    "Reminder",
    "ReportMail",
    "Role",
    "Scope",
    "Status",
    "SummaryReport",
    "Task",
    "Token",
    "User",
]
