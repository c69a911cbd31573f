"""Settings of the tests, where the environment has none, and a database that threads can share."""

import os
from pathlib import Path

import django
import pytest
from django.conf import settings
from django.db import connections

# pytest-django reads settings before any conftest when pyproject names them; so it is done here.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "schedsite.settings")
os.environ.setdefault("SECRET_KEY", "tests-only")
django.setup()
# Nothing is collected for the tests, and WhiteNoise warns of a directory that is not there.
Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    django_db_modify_db_settings_parallel_suffix: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A file, not memory: SQLite's shared memory has no waiting for a lock."""
    database = connections["default"].settings_dict
    if database["ENGINE"].endswith("sqlite3"):
        directory: Path = tmp_path_factory.mktemp("database")
        database["TEST"]["NAME"] = str(directory / "test.sqlite3")
