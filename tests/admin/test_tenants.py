"""Tenants in the admin: weighed within bounds, found, and told to the scheduler."""

import asyncio

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import path, reverse

from routing.models import Tenant
from routing.store.tenants import DjangoTenantStore

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]

urlpatterns = [path("admin/", admin.site.urls)]


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root"))
    return client


def test_the_scheduler_reads_the_weights() -> None:
    assert asyncio.run(DjangoTenantStore().weights()) == {}
    Tenant.objects.create(name="acme", weight=3)
    Tenant.objects.create(name="beta")
    assert asyncio.run(DjangoTenantStore().weights()) == {"acme": 3, "beta": 1}


@pytest.mark.parametrize("weight", [0, 101])
def test_a_weight_out_of_bounds_is_refused(operator: Client, weight: int) -> None:
    answer = operator.post(reverse("admin:routing_tenant_add"), {"name": "a", "weight": weight})
    assert answer.status_code == 200
    assert b"Ensure this value is" in answer.content
    with pytest.raises(IntegrityError), transaction.atomic():
        Tenant.objects.create(name="a", weight=weight)
    assert not Tenant.objects.exists()


def test_tenants_are_listed_and_searched(operator: Client) -> None:
    Tenant.objects.create(name="acme", weight=3, note="pays for three")
    Tenant.objects.create(name="beta")
    found = operator.get(reverse("admin:routing_tenant_changelist"), {"q": "three"}).content
    assert b"acme" in found
    assert b"beta" not in found
