"""The app of dispatch and sessions."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class RoutingConfig(AppConfig):
    name = "routing"
    verbose_name = "Dispatch"

    def ready(self) -> None:
        from routing import checks  # noqa: F401 (importing registers them)
        from routing.groups import make_groups

        post_migrate.connect(make_groups, sender=self, dispatch_uid="routing.groups")
