"""The site's HTTP routes that go through Django. Probes are answered before: see `asgi`."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from registry.admin_live import live_urls
from routing.admin_letters import letter_urls
from routing.api import api

urlpatterns = [
    path("", RedirectView.as_view(url="/ops/")),
    path("ops/", include("routing.ops.urls")),
    path("admin/live/", include(live_urls(admin.site))),
    path("admin/deadletters/", include(letter_urls(admin.site))),
    path("admin/", admin.site.urls),
    path("api/v1/", api.urls),
]
