from django.contrib.auth.models import AbstractUser


class User(AbstractUser):
    """Somebody who signs in. What others see of them is `display_name`."""

    id: int

    @property
    def display_name(self) -> str:
        return self.get_full_name() or self.username
