"""Sets up the demo's database: the tables, and an operator who may do everything."""

import os
import sys

import django
from django.core.management import call_command


def main() -> None:
    name, password = sys.argv[1:]
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "schedsite.settings")
    django.setup()
    from django.contrib.auth import get_user_model

    call_command("migrate", verbosity=0)
    get_user_model().objects.create_superuser(name, "operator@localhost", password)


if __name__ == "__main__":
    main()
