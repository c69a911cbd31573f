"""The app of dispatch and sessions."""

from django.apps import AppConfig


class RoutingConfig(AppConfig):
    name = "routing"
    verbose_name = "Dispatch"

    def ready(self) -> None:
        from routing import checks  # noqa: F401 (importing registers them)
