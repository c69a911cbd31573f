"""Tenants in the database, where operators give them weights."""

from registry.store.history import in_database
from routing.models import Tenant


class DjangoTenantStore:
    """Implements `TenantStore`."""

    async def weights(self) -> dict[str, int]:
        return await in_database(_weights)


def _weights() -> dict[str, int]:
    return dict(Tenant.objects.values_list("name", "weight"))
